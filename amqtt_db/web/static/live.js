// Keeps the changing part of a page up to date; without it, reload the page.
"use strict";
const part = document.querySelector("[data-live]");
const state = document.getElementById("state");
if (part && window.EventSource) {
  const source = new EventSource(part.dataset.live);
  const busy = () => part.contains(document.activeElement) || (getSelection() && !getSelection().isCollapsed);
  source.onopen = () => { state.textContent = "live"; };
  source.onerror = () => { state.textContent = "waiting for the server"; };
  source.onmessage = (event) => { if (!busy()) part.innerHTML = event.data; };
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}

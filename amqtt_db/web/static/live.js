// Keeps the changing part of a page up to date; without it, reload the page.
"use strict";
const part = document.querySelector("[data-live]");
const state = document.getElementById("state");
if (part && window.EventSource) {
  let source = null;
  let news = null;
  const tell = (text) => { if (state.textContent !== text) state.textContent = text; };
  const busy = () => part.contains(document.activeElement) || (getSelection() && !getSelection().isCollapsed);
  const show = () => {
    if (news === null) return;
    if (busy()) return tell("paused while you use it");
    const places = [...part.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    part.innerHTML = news;
    part.querySelectorAll(".scroll").forEach((one, index) => { one.scrollLeft = places[index] || 0; });
    news = null;
    tell("live");
  };
  const open = () => {
    source = new EventSource(part.dataset.live);
    source.onopen = () => tell("live");
    source.onerror = () => tell(source.readyState === EventSource.CLOSED ? "reload for news" : "waiting for the server");
    source.onmessage = (event) => { news = event.data; show(); };
  };
  // Only what somebody looks at is kept up to date: a browser opens at most six connections to a server.
  const follow = () => {
    if (source) source.close();
    if (!document.hidden) open();
  };
  follow();
  document.addEventListener("visibilitychange", follow);
  document.addEventListener("selectionchange", show);
  part.addEventListener("focusout", () => setTimeout(show));
  addEventListener("pagehide", () => source && source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}

"""Never lost, never doubled: what is acknowledged under every fault is stored once, value by value.

Each test is a fault, named by its marker.  Short by default; ``--rounds N`` repeats every fault N times, each at other
moments, and makes the loads larger.  ``--write-faults FILE`` writes the table of what was counted between the markers
in a Markdown file.
"""

"""FewShotSeg: draw an organ once, segment the rest of the scan and every new scan."""

import os

# GNU's OpenMP reads it when torch is loaded. Its threads spin for milliseconds when they wait for one another, and a match waits
# ten thousand times: with another program busy on one of two cores it took more than 200 s instead of 3.5; with this, 10 s.
os.environ.setdefault("GOMP_SPINCOUNT", "15000")

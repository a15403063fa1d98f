"""FewShotSeg: draw an organ once, segment the rest of the scan and every new scan."""

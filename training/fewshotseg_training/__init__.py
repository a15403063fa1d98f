"""Training of FewShotSeg's encoders from unlabelled scans."""

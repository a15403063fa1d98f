"""The losses of the methods; their models are in FewShotSegLib.methods."""

"""How results are measured: protocols, metrics, baselines."""

"""kdcompress: robustness-preserving model compression."""

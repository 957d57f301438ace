"""What a network is worth: accuracy, robust accuracy, certificates, and the comparison of teacher and student."""

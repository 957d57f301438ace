"""Attacks: a model, inputs and labels in; adversarial inputs inside the ball and [0,1] out."""

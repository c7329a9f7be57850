"""Training pairs go in, a fitted map comes out; full-batch gradient descent on random features."""

import math
import time

import numpy as np

ACTIVATIONS = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}


def share_of_peak(progress, schedule, floor):
    """Learning rate at `progress` in [0, 1] as a share of its peak."""
    if schedule == "constant":
        return 1.0
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


class FeatureMap:
    def __init__(self, inputs, outputs, width, activation, scale, seed):
        random = np.random.default_rng(seed)
        self.projection = random.normal(size=(inputs, width)) * scale / math.sqrt(inputs)
        self.weight = 0.1 * random.normal(size=(width, outputs))
        self.activation = ACTIVATIONS[activation]

    def features(self, image):
        return self.activation(image @ self.projection)

    def embed(self, image):
        return self.features(image) @ self.weight

    def fit(self, image, text, lr, decay, steps, schedule, floor, seconds=None):
        """The curve: one point a step. Raises FloatingPointError when the loss is not finite."""
        features, curve, start = self.features(image), [], time.perf_counter()
        for step in range(steps):
            error = features @ self.weight - text
            loss, used = float((error**2).mean()), time.perf_counter() - start
            if not math.isfinite(loss) or loss > 1e6:
                raise FloatingPointError(f"loss {loss} at step {step}")
            rate = lr * share_of_peak(step / steps, schedule, floor)
            gradient = features.T @ error / len(text) + decay * self.weight
            curve.append({"step": step, "seconds": used, "loss": loss, "learning_rate": rate})
            self.weight -= rate * gradient
            if seconds is not None and used > seconds:
                break
        return curve

"""A seed goes in, pairs of views come out. Masked in a sandbox: it could redraw the pairs."""

import numpy as np

FOLDS = 3


def draw(seed, pairs):
    """Two noisy views (N, 24) and (N, 8) of N hidden vectors, float32."""
    random = np.random.default_rng(seed)
    hidden = random.normal(size=(pairs, 8))
    image = np.tanh(hidden @ random.normal(size=(8, 24)) / 2) + 0.7 * random.normal(size=(pairs, 24))
    text = hidden + 0.7 * random.normal(size=(pairs, 8))
    return image.astype(np.float32), text.astype(np.float32)


def split(pairs, fold):
    """Indices of the training and the validation part of a fold."""
    parts = np.array_split(np.random.default_rng(42).permutation(pairs), FOLDS)
    return np.concatenate([parts[k] for k in range(FOLDS) if k != fold]), parts[fold]

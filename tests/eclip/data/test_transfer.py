"""What passes between host and device arrives, and constants are sent once."""

import numpy as np
import torch

from eclip.data.transfer import Reading, constants, sent


def test_an_array_arrives():
    assert sent(np.array([3, 1]), torch.device("cpu")).tolist() == [3, 1]
    assert sent(np.array([3, 1]), torch.device("meta")).device.type == "meta"


def test_constants_are_sent_once_and_serve_training_after_evaluation():
    with torch.inference_mode():
        first = constants([0.25, 0.5, 0.125], torch.device("cpu"))
    assert constants((0.25, 0.5, 0.125), torch.device("cpu")) is first
    weight = torch.ones(3, 1, 1, requires_grad=True)
    (first * weight).sum().backward()
    assert weight.grad.flatten().tolist() == [0.25, 0.5, 0.125]


def test_a_reading_is_of_the_moment_it_was_made():
    loss = torch.tensor(2.0, requires_grad=True)
    reading = Reading({"loss": loss * 2, "norm": torch.tensor(0.5)})
    with torch.no_grad():
        loss.fill_(9.0)
    assert reading.read() == {"loss": 4.0, "norm": 0.5}

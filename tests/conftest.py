"""Tests run on two threads at most: the networks here are too small to gain from more."""

import torch

torch.set_num_threads(min(2, torch.get_num_threads()))

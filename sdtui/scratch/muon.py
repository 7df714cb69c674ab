"""Muon: the momentum of each weight matrix, with all its singular values set near one, is the step.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; a convolution's kernel is flattened to
(out, in * height * width), as there. For small convolutional networks on a small budget it needs far fewer steps than AdamW.
"""

from collections.abc import Iterable
from concurrent.futures import Executor

import torch

# The quintic of Newton and Schulz that Jordan et al. tuned for the steepest slope at zero.
A, B, C = 3.4445, -4.7750, 2.0315


def orthogonalised(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """(m, n) -> (m, n) with the same singular vectors, singular values between about 0.7 and 1.2."""
    x: torch.Tensor = (matrix / (matrix.norm() + 1e-7)).to(torch.bfloat16 if fast_bf16(matrix.device) else matrix.dtype)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = A * x + (B * gram + C * gram @ gram) @ x
    found: torch.Tensor = x.T if tall else x
    return found.to(matrix.dtype)


def fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware; a CPU that does not takes 75 times as long as with float32."""
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


class Muon(torch.optim.Optimizer):
    """For hidden weights of two or more dimensions; everything else belongs to AdamW."""

    def __init__(self, params: Iterable[torch.Tensor], lr: float, pool: Executor, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self._pool = pool

    @torch.no_grad()
    def step(self, _closure: None = None) -> None:  # type: ignore[override]
        """One step for every weight, several weights at a time."""
        for group in self.param_groups:
            list(self._pool.map(lambda weight, g=group: self._update(weight, g["lr"], g["momentum"]), group["params"]))

    @torch.no_grad()
    def _update(self, weight: torch.Tensor, lr: float, decay: float) -> None:
        """Nesterov's momentum, scaled so that the root mean square of a step is about 0.2 lr, as AdamW's is."""
        if weight.grad is None:
            return
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"]
        momentum.lerp_(weight.grad, 1 - decay)
        gradient = torch.lerp(weight.grad, momentum, decay)
        update = orthogonalised(gradient.flatten(1)).view_as(weight)
        weight.add_(update, alpha=-0.2 * max(weight.shape[0], weight[0].numel()) ** 0.5 * lr)

"""Softmax regression on a fixed synthetic data set: supervised fine-tuning without a network.

A token is one example: its loss is the cross-entropy of its label, weighted c = a + b eps with a random sign eps. Each
replicate draws its own tokens and signs; the data set is the same for all, a function of the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lab.draw import Draw
from lab.objectives.logistic_settings import LogisticSettings
from lab.objectives.synthetic import Synthetic, SyntheticBatch

_ELEMENTS = 2**22  # numbers of the largest table that is made at a time


class Logistic(Synthetic[LogisticSettings]):
    """See the module; arguments as `Synthetic`."""

    def prepare(self, draw: Draw) -> None:
        settings = self.settings
        scale = np.arange(1, settings.features + 1) ** -settings.feature_decay
        shape = (settings.features, settings.classes)
        teacher = draw.generator("teacher").standard_normal(shape)
        teacher *= settings.teacher_scale / np.sqrt((scale**2).sum())
        self._train = self._data(scale, teacher, draw, "train")
        self._held_out = self._data(scale, teacher, draw, "held_out")

    def start(self, settings: LogisticSettings, draw: Draw) -> np.ndarray:
        shape = (settings.features, settings.classes)
        return settings.start_scale * draw.generator("start").standard_normal(shape)

    def gradients(self, batch: SyntheticBatch, out: Sequence[Tensor]) -> None:
        losses = []
        for index, (cell, value) in enumerate(zip(self.cells, self.values, strict=True)):
            settings = cell.settings
            features, labels = (each.to(value.device) for each in self._train)
            shape = (settings.replicates, settings.tokens)
            uniforms = self.uniforms(batch, "token", index, shape)
            chosen = (uniforms.double() * settings.examples).long()
            weights = self._weights(batch, index, shape)
            total = 0.0
            for rows in self._parts(settings.tokens * max(settings.features, settings.classes)):
                x, y = features[chosen[rows]], labels[chosen[rows]][..., None]
                log_probs = torch.log_softmax(torch.bmm(x, value[rows]), dim=-1)
                total -= float(log_probs.gather(-1, y).double().sum())
                errors = log_probs.exp_().scatter_add_(-1, y, -torch.ones_like(y, dtype=log_probs.dtype))
                torch.bmm(x.transpose(1, 2), errors.mul_(weights[rows][..., None]), out=out[index][rows])
            self.add_gradient_noise(batch, settings.gradient_noise, index, out[index])
            losses.append(total / chosen.numel())
        batch.metrics["cross_entropy"] = float(np.mean(losses))

    def evaluate(self, draw: Draw) -> dict[str, np.ndarray]:
        """Return `pass_rate`: the mean probability of the right label, held out, [cell, replicate]."""
        return {"pass_rate": np.stack([self._right_probability(value) for value in self.values])}

    def mechanism(self) -> dict[str, np.ndarray]:
        """Return what is exact on the training set, [cell, replicate].

        `cross_entropy` (nats); `drift_square`, the squared norm of the expected gradient of an update; `noise_trace`,
        the trace of its covariance.
        """
        found: dict[str, list[np.ndarray]] = {}
        for cell, value in zip(self.cells, self.values, strict=True):
            for name, values in self._moments(cell.settings, value).items():
                found.setdefault(name, []).append(values)
        return {name: np.stack(values) for name, values in found.items()}

    def expected_gradient(self, cell: int) -> np.ndarray:
        """Return the expected gradient of an update of a cell, float64 [replicate, feature, class]."""
        signal, _ = self.cells[cell].settings.amplitudes()
        parts = [signal * mean for _, _, mean in self._over_data(self.values[cell])]
        return np.concatenate(parts)

    def _data(self, scale: np.ndarray, teacher: np.ndarray, draw: Draw, split: str) -> tuple[Tensor, Tensor]:
        """Return features float32 [example, feature] and labels int64 [example]."""
        generator = draw.generator(f"examples/{split}")
        features = scale * generator.standard_normal((self.settings.examples, self.settings.features))
        # The class of the largest logit plus Gumbel noise is a sample of the softmax.
        noise = generator.gumbel(size=(self.settings.examples, self.settings.classes))
        labels = (features @ teacher + noise).argmax(1)
        return torch.from_numpy(np.float32(features)), torch.from_numpy(labels)

    def _weights(self, batch: SyntheticBatch, cell: int, shape: tuple[int, int]) -> Tensor:
        """Return c of each token over the number of tokens, float32 [replicate, token]."""
        settings = self.cells[cell].settings
        signal, noise = settings.amplitudes()
        if noise == 0:
            return torch.full(shape, signal / settings.tokens, device=self.values[cell].device)
        signs = torch.where(self.uniforms(batch, "token_sign", cell, shape) < 0.5, -1.0, 1.0)
        return (signal + noise * signs) / settings.tokens

    def _parts(self, width: int) -> Iterator[slice]:
        """Yield slices of replicates whose tables of `width` numbers each are small enough."""
        rows = max(1, _ELEMENTS // width)
        for start in range(0, self.settings.replicates, rows):
            yield slice(start, min(start + rows, self.settings.replicates))

    def _right_probability(self, value: Tensor) -> np.ndarray:
        features, labels = (each.to(value.device) for each in self._held_out)
        parts = []
        for rows in self._parts(self.settings.examples * self.settings.classes):
            log_probs = torch.log_softmax(features.double() @ value[rows].double(), dim=-1)
            parts.append(log_probs[:, torch.arange(len(labels)), labels].exp().mean(-1))
        probability: np.ndarray = torch.cat(parts).cpu().numpy()
        return probability

    def _over_data(self, value: Tensor) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield, for parts of the replicates, the cross-entropy [replicate], the mean squared norm of a token's
        gradient [replicate], and the mean of that gradient [replicate, feature, class], all at weight 1."""
        features, labels = (each.to(value.device) for each in self._train)
        features = features.double()
        lengths = (features**2).sum(-1)
        for rows in self._parts(self.settings.examples * self.settings.classes):
            log_probs = torch.log_softmax(features @ value[rows].double(), dim=-1)
            entropy = -log_probs[:, torch.arange(len(labels)), labels].mean(-1)
            errors = log_probs.exp()
            errors[:, torch.arange(len(labels)), labels] -= 1
            square = ((errors**2).sum(-1) * lengths).mean(-1)
            mean = torch.einsum("nf,rnc->rfc", features, errors) / len(labels)
            yield entropy.cpu().numpy(), square.cpu().numpy(), mean.cpu().numpy()

    def _moments(self, settings: LogisticSettings, value: Tensor) -> dict[str, np.ndarray]:
        signal, noise = settings.amplitudes()
        entropies, drifts, traces = [], [], []
        isotropic = settings.gradient_noise**2 * settings.coordinates_each
        for entropy, square, mean in self._over_data(value):
            drift = signal**2 * (mean**2).sum((-2, -1))
            entropies.append(entropy)
            drifts.append(drift)
            traces.append(((signal**2 + noise**2) * square - drift) / settings.tokens + isotropic)
        return {
            "cross_entropy": np.concatenate(entropies),
            "drift_square": np.concatenate(drifts),
            "noise_trace": np.concatenate(traces),
        }

"""A policy: a causal language model together with its tokenizer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from lab.errors import BadInput
from lab.memory import is_out_of_memory
from lab.policies.chosen_log_probs import chosen_log_probs
from lab.policies.decoder_layers import decoder_layers
from lab.policies.end_tokens import end_ids
from lab.policies.error_text import in_words
from lab.policies.graphed_source import graphed_source
from lab.policies.logit_source import LogitSource, ModelSource, positions
from lab.policies.output_head import OutputHead
from lab.policies.recomputation import recomputable_layers, recomputing
from lab.policies.rollout import Rollouts, rollout
from lab.policies.static_source import StaticSource, is_supported
from lab.sharded_weights import is_sharded, shard_weights, whole_weights

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()  # what is wrong with a model is said once, by the lab


@dataclass
class EncodedPrompts:
    """Left-padded prompts."""

    ids: Tensor
    """int64 [prompt, position]."""
    mask: Tensor
    """int64 [prompt, position]; 0 marks padding."""

    @property
    def lengths(self) -> Tensor:
        """int64 [prompt]: tokens that are not padding."""
        return self.mask.sum(-1)


class Policy(nn.Module):
    """Causal LM and tokenizer, with the two computations that training needs.

    Dropout is off throughout: policy gradients assume that the policy sampled from is the one trained.

    Args:
        model: any Hugging Face causal LM.
        tokenizer: its tokenizer, with an end and a padding token.
        source: where it came from, for messages and provenance.
        chat_template: put prompts through the tokenizer's chat template.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.

    Raises:
        BadInput: no end token, no padding token, no chat template where one is asked for, or activations that cannot
            be computed again where that is asked for.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        source: str,
        chat_template: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if tokenizer.eos_token_id is None:
            raise BadInput(f"policy: the tokenizer of {source} has no eos token; set eos_token in it")
        if tokenizer.pad_token_id is None:
            raise BadInput(f"policy: the tokenizer of {source} has no pad token; set pad_token in it")
        if chat_template and not getattr(tokenizer, "chat_template", None):
            raise BadInput(f"policy.chat_template: the tokenizer of {source} has none; set it to false")
        if gradient_checkpointing:
            recomputable_layers(model)
        tokenizer.padding_side = "left"
        self.model = model
        self.tokenizer = tokenizer
        self.source = source
        self.chat_template = chat_template
        self.gradient_checkpointing = gradient_checkpointing
        self.head = OutputHead(model)
        self.end_ids = end_ids(model, tokenizer)
        """Ids of the tokens that end a completion."""
        self.embeddings = _embeddings(model)
        """Number of tokens that the model has an embedding for, None where it does not say."""
        self._static: StaticSource | None = None
        self._static_is_supported: bool | None = None
        self.model.eval()

    @property
    def eos_id(self) -> int:
        """Id of the tokenizer's end token, which is appended to a text that is learnt."""
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """Id of the padding token."""
        return int(self.tokenizer.pad_token_id)

    @property
    def context(self) -> int | None:
        """Longest sequence in tokens, None where the model's config does not say."""
        return getattr(self.model.config, "max_position_embeddings", None)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.model.parameters()).device

    def logit_source(self, new_tokens: int) -> LogitSource:
        """Return what the rollout engine samples at most `new_tokens` tokens from.

        A Llama gets a static cache and packed weights, any other model its own forward pass. Where the weights are
        cut up, they have to be held whole (`whole_weights`) for as long as it is used.
        """
        if self._static_is_supported is None:
            self._static_is_supported = is_supported(self.model)
        if not self._static_is_supported:
            return ModelSource(self.model)
        # Weights that are cut up are at other addresses each time.
        if self._static is None or self._static.device != self.device or self.is_sharded:
            graphs = self.device.type == "cuda" and not self.is_sharded
            self._static = (graphed_source if graphs else StaticSource)(self.model, new_tokens)
        self._static.new_tokens = new_tokens
        return self._static

    @property
    def is_sharded(self) -> bool:
        """Whether this process holds only a share of the weights."""
        return is_sharded(self)

    def shard_weights(self) -> None:
        """Cut the weights up over all processes; see `lab.sharded_weights`."""
        shard_weights(self, decoder_layers(self.model) or ())

    def forward(self, compute: Callable[[], Tensor]) -> Tensor:
        """Return what `compute` returns. Weights that are cut up are gathered for what is called in this way."""
        return compute()

    def encode(self, prompts: list[str]) -> EncodedPrompts:
        """Tokenize prompts, left-padded to the longest.

        Raises:
            BadInput: a character that the tokenizer has no token for, a token that the model has no embedding for, a
                prompt without tokens, or a chat template that fails.
        """
        texts = self._through_template(prompts) if self.chat_template else prompts
        encoded = self.tokenizer(
            texts,
            return_tensors="pt",
            padding=True,
            add_special_tokens=not self.chat_template,
            return_token_type_ids=False,
        )
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        if not bool(mask.any(-1).all()):
            row = int((~mask.any(-1)).nonzero()[0])
            raise BadInput(
                f"task.prompt: {prompts[row]!r} has no tokens; write something that a model can go on from"
            )
        self._refuse_unknown(prompts, ids, mask)
        return EncodedPrompts(ids.to(self.device), mask.to(self.device))

    def _through_template(self, prompts: list[str]) -> list[str]:
        try:
            texts = [
                self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
                )
                for prompt in prompts
            ]
        except Exception as error:  # what a template raises is up to who wrote it
            if is_out_of_memory(error):
                raise
            raise BadInput(
                f"policy.chat_template: the template of {self.source} fails ({in_words(error)}); set it to false or "
                "mend the template"
            ) from error
        if not all(texts):
            raise BadInput(
                f"policy.chat_template: the template of {self.source} renders nothing for a user's message; set it to "
                "false or mend the template"
            )
        return [str(text) for text in texts]

    def _refuse_unknown(self, prompts: list[str], ids: Tensor, mask: Tensor) -> None:
        """Refuse prompts with a part that there is no token for, or one that the model has no embedding for.

        Args:
            prompts: without chat template.
            ids, mask: what was made of them, int64 [prompt, position].
        """
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and bool(((ids == unknown) & (mask == 1)).any()):
            found = ((ids == unknown) & (mask == 1)).any(-1)
            if unknown in {self.tokenizer.bos_token_id, self.eos_id, self.pad_id}:
                # It may stand there in its other role: put around the text, or part of the chat template.
                alone = self.tokenizer(prompts, add_special_tokens=False)["input_ids"]
                found = torch.tensor([unknown in row for row in alone])
            if bool(found.any()):
                row = int(found.nonzero()[0])
                raise BadInput(f"task.prompt: the tokenizer has no token for part of {prompts[row]!r}")
        if self.embeddings is not None and int(ids.max()) >= self.embeddings:
            row = int((ids >= self.embeddings).any(-1).nonzero()[0])
            raise BadInput(
                f"task.prompt: token {int(ids.max())} of {prompts[row]!r} has no embedding in {self.source}, which has "
                f"{self.embeddings}"
            )

    def encode_completions(self, completions: list[str]) -> tuple[Tensor, Tensor]:
        """Tokenize completions, each followed by the end token, right-padded.

        Returns:
            tokens int64 [row, position] and mask bool [row, position].
        """
        rows = [
            [*self.tokenizer(completion, add_special_tokens=False)["input_ids"], self.eos_id]
            for completion in completions
        ]
        longest = max(len(row) for row in rows)
        tokens = torch.full((len(rows), longest), self.pad_id, dtype=torch.int64)
        mask = torch.zeros((len(rows), longest), dtype=torch.bool)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = True
        return tokens.to(self.device), mask.to(self.device)

    def decode(self, tokens: Tensor, mask: Tensor) -> list[str]:
        """Return the text of completions, without what ended them and padding.

        Any other special token that was sampled stays visible, so that it cannot pass for the bare answer.
        """
        ended = torch.isin(tokens, torch.tensor(self.end_ids, device=tokens.device))
        keep = (mask & ~ended).tolist()
        rows = [tuple(itertools.compress(row, kept)) for row, kept in zip(tokens.tolist(), keep, strict=True)]
        # Short answers repeat: each is decoded once.
        different = list(dict.fromkeys(rows))
        texts = self.tokenizer.batch_decode([list(row) for row in different], skip_special_tokens=False)
        known = dict(zip(different, texts, strict=True))
        return [known[row] for row in rows]

    def check_context(self, prompts: EncodedPrompts, new: int) -> None:
        """Refuse prompts that leave no room for `new` tokens.

        Raises:
            BadInput: a prompt and its completion could be longer than the model's context.
        """
        longest = prompts.ids.shape[1]
        if self.context is not None and longest + new > self.context:
            raise BadInput(
                f"generation.max_new_tokens: a prompt of {longest} tokens and {new} new ones exceed the "
                f"model's context of {self.context}; lower it, or shorten task.prompt"
            )

    def sample(self, prompts: EncodedPrompts, uniforms: Tensor, temperature: float) -> Rollouts:
        """Sample completions of prompts; see `lab.policies.rollout.rollout` for `uniforms` [row, token].

        Raises:
            BadInput: a prompt and its completion could be longer than the model's context.
        """
        self.check_context(prompts, uniforms.shape[1])
        with whole_weights(self):
            return rollout(
                self.logit_source(uniforms.shape[1]),
                prompts.ids,
                prompts.mask,
                uniforms,
                temperature=temperature,
                eos_id=self.end_ids,
                pad_id=self.pad_id,
            )

    def completion_log_probs(
        self,
        prompts: EncodedPrompts,
        owner: Tensor,
        tokens: Tensor,
        mask: Tensor,
        temperature: float = 1.0,
    ) -> Tensor:
        """Return the log-probability of each completion token, teacher-forced, with gradient.

        The prompt's prefix is computed once and shared by the completions that it owns; the gradient
        flows back through the shared keys and values. Where the model's head is a plain linear map, logits
        are made for a slice of the tokens at a time (see `chosen_log_probs`).

        Args:
            prompts: the prompts.
            owner: int64 [row], index of each row's prompt.
            tokens: int64 [row, position], right-padded completions.
            mask: bool [row, position].
            temperature: logits are divided by it.

        Returns:
            float32 [row, position], nats; 0 where masked.
        """
        # Keys and values that are shared take two passes; layers that are gathered or computed again allow for one.
        single_pass = torch.is_grad_enabled() and (self.gradient_checkpointing or self.is_sharded)
        states_of = self._states_of_whole_rows if single_pass else self._states

        def compute() -> Tensor:
            states = states_of(prompts, owner, tokens)
            if self.head.is_plain:
                return chosen_log_probs(states[mask], self.head.weight, tokens[mask], temperature)
            log_probs = torch.log_softmax(states[mask].float() / temperature, dim=-1)
            return log_probs.gather(-1, tokens[mask][:, None])[:, 0]

        if torch.is_grad_enabled():
            chosen = self(compute)
        else:
            with whole_weights(self):
                chosen = compute()
        return chosen.new_zeros(mask.shape).masked_scatter(mask, chosen)

    def _states(self, prompts: EncodedPrompts, owner: Tensor, tokens: Tensor) -> Tensor:
        """Return what predicts each completion token (see `_forward`), [row, position, ...], sharing the
        prompts' prefixes."""
        padded = bool((prompts.mask == 0).any())
        cache = DynamicCache()
        last = {} if self.head.is_plain else {"logits_to_keep": 1}
        before = self._forward(
            input_ids=prompts.ids,
            attention_mask=prompts.mask if padded else None,
            position_ids=positions(prompts.mask),
            past_key_values=cache,
            use_cache=True,
            **last,
        )
        states = before[:, -1:][owner]
        if tokens.shape[1] > 1:
            cache.batch_select_indices(owner)
            # A completion is padded on the right only, so under causal attention no real token sees padding.
            full = torch.cat([prompts.mask[owner], torch.ones_like(tokens[:, :-1])], dim=1)
            rest = self._forward(
                input_ids=tokens[:, :-1],
                attention_mask=full if padded else None,
                position_ids=positions(full)[:, prompts.ids.shape[1] :],
                past_key_values=cache,
                use_cache=True,
            )
            states = torch.cat([states, rest], dim=1)
        return states

    def _states_of_whole_rows(self, prompts: EncodedPrompts, owner: Tensor, tokens: Tensor) -> Tensor:
        """Return the same as `_states` in one pass, each row with its own prompt.

        With gradient checkpointing only each layer's input is kept, and the rest is computed again backward.
        """
        ids = torch.cat([prompts.ids[owner], tokens[:, :-1]], dim=1)
        mask = torch.cat([prompts.mask[owner], torch.ones_like(tokens[:, :-1])], dim=1)
        with recomputing(self.model) if self.gradient_checkpointing else nullcontext():
            states = self._forward(
                input_ids=ids,
                attention_mask=mask if bool((mask == 0).any()) else None,
                position_ids=positions(mask),
                use_cache=False,
            )
        return states[:, prompts.ids.shape[1] - 1 :]

    def _forward(self, **inputs: Any) -> Tensor:
        """Return last hidden states where the head is a plain linear map, else logits."""
        if self.head.is_plain:
            hidden: Tensor = self.model.base_model(**inputs).last_hidden_state
            return hidden
        logits: Tensor = self.model(**inputs).logits
        return logits

    def save(self, directory: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write model and tokenizer as a Hugging Face directory (safetensors).

        Args:
            directory: where.
            state: the model's tensors, needed where the weights are cut up.
        """
        self.model.save_pretrained(directory, state_dict=None if state is None else dict(state))
        self.tokenizer.save_pretrained(directory)


def _embeddings(model: nn.Module) -> int | None:
    table: Any = model.get_input_embeddings() if isinstance(model, PreTrainedModel) else None
    return getattr(table, "num_embeddings", None)

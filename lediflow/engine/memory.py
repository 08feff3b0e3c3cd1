"""What one rank holds while it trains, in bytes, by ZeRO stage: the one home of these formulas.

P trained parameters on N ranks; w is the size of a weight that computes: 2 where DeepSpeed trains in bfloat16
(stages 1 to 3), else 4. Autocast (stage 0 and the local engine) keeps float32 weights and casts them on the way.

    weights     w P        every rank computes with all of them; stage 3 keeps w P / N and gathers the rest
    masters     4 P / N    float32 weights that Adam updates; in stage 0 the weights themselves
    moments     8 P / N    Adam's two, in float32; in stage 0 8 P
    averages    4 P / N    for each average of the weights; in stage 0 4 P
    gradients   w P        from stage 2 on a rank keeps w P / N, each bucket's owner after the bucket is summed

Source: Rajbhandari et al. 2020 (arXiv:1910.02054, figure 1), with what DeepSpeed 0.19 adds: buckets, the float32 copy
of a rank's gradients while Adam steps, and in float32 too masters of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from lediflow.engine.protocol import EngineConfig

FLOAT32, BFLOAT16 = 4, 2  # bytes
MOMENTS = 2
BUCKET_ELEMENTS = (
    50_000_000  # gradients summed in one message: larger ones are no faster, and lie there for nothing
)
GATHERED_ELEMENTS = (
    1_000_000_000  # weights that stage 3 lets lie until their next use (stage3_max_live_parameters)
)


@dataclass(frozen=True)
class Held:
    """Bytes of one rank. All but `host` lie on its device."""

    weights: int  # that compute, the frozen parent's among them
    gradients: int
    optimizer: int  # masters and moments
    averages: int
    buffers: int  # buckets, gathered weights, casts: only while a batch passes
    activations: int  # of a micro-batch, until its backward pass
    stepping: int  # float32 gradients, only while Adam steps: activations and buffers are gone then
    host: int  # offloaded state, and the copies that checkpoints are written from

    @property
    def standing(self) -> int:
        """What is always there."""
        return self.weights + self.gradients + self.optimizer + self.averages

    @property
    def peak(self) -> int:
        """The most that is there at once."""
        return self.standing + max(self.buffers + self.activations, self.stepping)


def held(
    parameters: int,
    config: EngineConfig,
    world_size: int,
    *,
    averages: int = 1,
    keeps_best: bool = False,
    frozen: int = 0,
    activations: int = 0,
) -> Held:
    """Memory of a rank with a resolved configuration; `frozen` are a parent's parameters, `activations` bytes.

    `keeps_best`: the averaged weights of the best validation are kept in host memory.
    """
    zero, ranks = config.zero, max(world_size, 1)
    owned = parameters if zero == 0 else -(-parameters // ranks)
    own_state = FLOAT32 * (MOMENTS + (zero > 0)) * owned
    own_averages = FLOAT32 * averages * owned
    is_offloaded = zero > 0 and config.offload == "cpu"
    return Held(
        weights=weight_bytes(config) * (owned if zero == 3 else parameters) + FLOAT32 * frozen,
        gradients=gradient_bytes(parameters, owned, config),
        optimizer=0 if is_offloaded else own_state,
        averages=0 if is_offloaded else own_averages,
        buffers=buffer_bytes(parameters, frozen, config),
        activations=activations,
        stepping=0 if zero == 0 or is_offloaded else FLOAT32 * owned,
        host=saved_bytes(parameters, averages + keeps_best) // ranks
        + FLOAT32 * keeps_best * owned
        + is_offloaded * (own_state + own_averages + FLOAT32 * owned),  # gradients are summed there too
    )


def weight_bytes(config: EngineConfig) -> int:
    """Of one weight that computes."""
    return BFLOAT16 if config.zero > 0 and config.precision == "bfloat16" else FLOAT32


def gradient_bytes(parameters: int, owned: int, config: EngineConfig) -> int:
    """What stands between micro-batches."""
    if config.zero < 2:
        return weight_bytes(config) * parameters
    return 0 if config.offload == "cpu" else weight_bytes(config) * owned


def buffer_bytes(parameters: int, frozen: int, config: EngineConfig) -> int:
    """What lies there while a batch passes, besides its activations."""
    if config.zero == 0:  # autocast's copies wait for the backward pass
        return BFLOAT16 * (parameters + frozen) if config.precision == "bfloat16" else 0
    buckets = weight_bytes(config) * bucket_elements(parameters)
    gathered = weight_bytes(config) * min(parameters, GATHERED_ELEMENTS) if config.zero == 3 else 0
    casts = BFLOAT16 * frozen if config.precision == "bfloat16" else 0
    return buckets + gathered + casts


def bucket_elements(parameters: int) -> int:
    """Gradients of one message, which DeepSpeed allocates whole (reduce_bucket_size; its default is 500 million)."""
    return min(parameters, BUCKET_ELEMENTS)


def saved_bytes(parameters: int, averages: int) -> int:
    """Of all ranks' slices of a checkpoint: weights, moments and averages in float32."""
    return FLOAT32 * (1 + MOMENTS + averages) * parameters


def reserved_bytes(parameters: int, standing: Held) -> int:
    """What to hold aside while a plain float32 model and its gradients try a micro-batch in the engine's place."""
    return max(0, standing.standing + standing.buffers - 2 * FLOAT32 * parameters)

"""Two processes give what one gives: batch norm, gradients, noise, training, resumed or not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.config import TrainConfig
from pipeline.distributed import Ranks, launched
from pipeline.errors import RequestError, StageError
from pipeline.models.backbones import WIDTH
from pipeline.noise.against import embeddings_by
from pipeline.noise.descent import Objective, descend
from pipeline.noise.error_min import search_noise
from pipeline.runtime import Runtime
from pipeline.training import loop
from pipeline.training.loop import predict
from pipeline.training.shared import spread_over
from tests.conftest import toy_faces
from tests.distributed.ranks import run_ranks
from tests.noise.test_error_min import TinyNet, config_of, surrogate_of
from tests.training.test_loop import train

pytestmark = pytest.mark.slow  # starting two processes takes most of it, so one pair does all the work that does not end it
SIZES = (6, 5, 1)  # photos of a batch: even, uneven, fewer than ranks


Pair = dict[str, list[Any]]  # of each job, what it gave in each process


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 32])
def test_parts_cover_a_batch_once(size: int, count: int) -> None:
    everyone = [Ranks(rank, size).share(count) for rank in range(size)]
    assert np.concatenate([np.arange(count)[share] for share in everyone]).tolist() == list(range(count))
    if count:
        parts = [Ranks(rank, size).part(count) for rank in range(size)]
        assert sum(part.weight for part in parts) == pytest.approx(1)
        assert all(part.stop > part.start and part.sizes[rank] == part.stop - part.start for rank, part in enumerate(parts))
        # Each photo is in as many parts as it has copies.
        times = np.bincount(np.concatenate([np.arange(count)[part.here] for part in parts]), minlength=count)
        assert (times == parts[0].copies).all()


def test_torchrun_says_who_this_process_is() -> None:
    assert launched({}) == Ranks()
    assert launched({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "OTHER": ""}) == Ranks(1, 4, 1)
    for wrong in ("4", "-1", "one"):
        with pytest.raises(RequestError, match="RANK"):
            launched({"RANK": wrong, "WORLD_SIZE": "4", "LOCAL_RANK": "0"})


class SmallNet(nn.Module):
    """Convolution, both batch norms, dropout and a head: what a batch's photos have in common goes through all of them."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.norm = nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8)
            self.drop, self.last, self.norm1, self.head = nn.Dropout(0.4), nn.Linear(8, WIDTH), nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 3)
            nn.init.uniform_(self.norm.weight, 0.5, 1.5)

    def embed(self, x_BCHW: Tensor) -> Tensor:
        y_BC = torch.relu(self.norm(self.conv(x_BCHW))).mean((2, 3))
        return self.norm1(self.last(self.drop(y_BC)))

    def forward(self, x_BCHW: Tensor, label_B: Tensor | None = None) -> Tensor:
        return self.head(self.embed(x_BCHW))

    def embed_and_classify(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.embed(x_BCHW)
        return nn.functional.normalize(embedding), self.head(embedding)


def step_of_each_size(runtime: Runtime, folder: Path) -> list[list[Tensor]]:
    """Loss, gradients of photos and weights, and batch norm's running statistics, of a batch of each size, in one process or several."""
    found = []
    for count in SIZES:
        model = SmallNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        part = spread_over(model, runtime.ranks).over(count)
        x_BCHW = torch.rand((count, 3, 9, 9), generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)
        label_B = torch.arange(count) % 3
        if count == 1:  # two alike, since batch norm of 512 single numbers needs more than one photo
            model.norm1.eval()
        x_BCHW.requires_grad_(True)
        model = copy.deepcopy(model)  # as is done to fold its batch norms
        torch.manual_seed(3)  # dropout
        loss = nn.functional.cross_entropy(model(x_BCHW[part.here]), label_B[part.here]) * part.weight
        loss.backward()
        own, buffer = [None if p.grad is None else p.grad.clone() for p in model.parameters()], None
        for _ in range(2):  # the second time in the memory of the first
            for parameter, gradient in zip(model.parameters(), own, strict=True):
                parameter.grad = None if gradient is None else gradient.clone()
            buffer = runtime.ranks.sum_gradients(model.parameters(), buffer)
        assert x_BCHW.grad is not None
        total = [runtime.ranks.sum_(tensor.detach().clone()) for tensor in (loss, x_BCHW.grad)]
        found.append([*total, *(p.grad.clone() for p in model.parameters() if p.grad is not None), *model.buffers()])
    return found


def test_batch_norm_dropout_and_gradients_are_those_of_one_process(cpu: Runtime, tmp_path: Path, pair: Pair) -> None:
    wanted = step_of_each_size(cpu, tmp_path)
    for found in pair["step_of_each_size"]:
        same_steps(found, wanted)


def same_steps(found: list[list[Tensor]], wanted: list[list[Tensor]]) -> None:
    for count, mine, others in zip(SIZES, found, wanted, strict=True):
        assert len(mine) == len(others)
        for one, other in zip(mine, others, strict=True):
            torch.testing.assert_close(one, other, msg=lambda text, count=count: f"batch of {count}: {text}")


def noise_search(runtime: Runtime, folder: Path, **values: Any) -> tuple[np.ndarray, list[dict[str, float]]]:
    """A search on toy faces; batches of 7 do not divide by two, and their last has one photo."""
    faces = toy_faces(identities=3, photos=5)
    config = config_of(rounds=2, batches=3, batch=7, stop_error=0.0, smooth=0.0, **values)
    rows = np.where(faces.label < 2, faces.label, -1)
    found = search_noise(
        config, lambda _: TinyNet(3), faces, rows, rows=2, runtime=runtime, report=lambda _: None, checkpoint=folder / "c.pt", key="k"
    )
    return found.delta, found.history


def released_search(runtime: Runtime, folder: Path) -> tuple[np.ndarray, list[dict[str, float]]]:
    return noise_search(runtime, folder, rule="released")


def robust_search(runtime: Runtime, folder: Path) -> tuple[np.ndarray, list[dict[str, float]]]:
    return noise_search(runtime, folder, transforms=True, draws=2)


def bound_search(runtime: Runtime, folder: Path) -> tuple[np.ndarray, list[dict[str, float]]]:
    return noise_search(runtime, folder, binding=True)


def deep_search(runtime: Runtime, folder: Path) -> tuple[np.ndarray, list[dict[str, float]]]:
    """A round with the real network, in float64: in float32 the last bit of a sum decides a tenth of the signs."""
    faces = toy_faces(identities=3, photos=3)
    rows = np.where(faces.label < 2, faces.label, -1)
    torch.set_default_dtype(torch.float64)
    try:
        found = search_noise(
            config_of(batches=2, batch=6), lambda _: surrogate_of(3), faces, rows, rows=2, runtime=runtime, report=lambda _: None
        )
    finally:
        torch.set_default_dtype(torch.float32)
    return found.delta, found.history


@pytest.mark.parametrize("search", [noise_search, released_search, robust_search, bound_search, deep_search])
def test_noise_is_that_of_one_process(search: Any, cpu: Runtime, tmp_path: Path, pair: Pair) -> None:
    wanted, history = search(cpu, tmp_path)
    (mine, records), (other, _) = pair[search.__name__]
    assert np.array_equal(mine, other), "the ranks disagree"
    assert np.abs(wanted).max() > 0
    assert (np.sign(mine) == np.sign(wanted)).mean() >= 0.99
    assert np.isclose(mine, wanted, atol=1e-3).mean() >= 0.99
    assert [record["error"] for record in records] == [record["error"] for record in history]
    assert [record["loss"] for record in records] == pytest.approx([record["loss"] for record in history], abs=1e-3)


def adversarial(runtime: Runtime, folder: Path) -> np.ndarray:
    """Against two networks, through transforms."""

    def against(model: nn.Module) -> Objective:
        return lambda x_BCHW, label_B: -nn.functional.cross_entropy(model(x_BCHW), label_B, reduction="none")

    faces = toy_faces(identities=3, photos=3)
    objectives = [against(TinyNet(classes).eval()) for classes in (3, 4)]
    return descend(
        objectives, faces, faces.label, rows=3, epsilon=16, steps=3, travel=2.5, batch=4, runtime=runtime, seed=0, transforms=True,
        untouched=0.5, momentum=0.9,
        report=lambda _, loss: None,
    )[0]  # fmt: skip


def test_adversarial_noise_is_that_of_one_process(cpu: Runtime, tmp_path: Path, pair: Pair) -> None:
    wanted = adversarial(cpu, tmp_path)
    for found in pair["adversarial"]:
        assert np.isclose(found, wanted, atol=1e-3).mean() >= 0.99


class Thumbnail:
    """A recogniser that exists: the embedding of a face is its thumbnail."""

    def embed(self, x_BCHW: Tensor) -> Tensor:
        return nn.functional.normalize(nn.functional.avg_pool2d(x_BCHW, 28).flatten(1), dim=1)


def known(runtime: Runtime, folder: Path) -> list[np.ndarray]:
    """Its embeddings of one photo, of which the second rank has no share, and of five."""
    return [embeddings_by(Thumbnail(), toy_faces(identities=1, photos=photos), runtime) for photos in (1, 5)]


def test_embeddings_are_shared_and_whole_everywhere(cpu: Runtime, tmp_path: Path, pair: Pair) -> None:
    wanted = known(cpu, tmp_path)
    assert [one.shape for one in wanted] == [(1, 48), (5, 48)]
    for found in pair["known"]:
        assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


def training(runtime: Runtime, folder: Path, *, stop: int | None = None, lr: float = 0.01) -> tuple[Any, ...]:
    """Two epochs of a small network, the last batch of each ragged; `stop`: killed after this epoch's report."""
    faces = toy_faces(identities=3, photos=8)
    config = TrainConfig(epochs=2, batch=5, lr=lr)
    epochs: list[int] = []

    def report(record: dict[str, Any]) -> None:
        epochs.append(record["epoch"])
        if record["epoch"] == stop:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_recogniser", lambda **_: SmallNet())
        try:
            model, history = train(config, faces, runtime, folder, report)
        except KeyboardInterrupt:
            return ()
    labels, embeddings = predict(model, faces, runtime, batch=4)
    return history, epochs, labels, embeddings


def resumed_training(runtime: Runtime, folder: Path) -> tuple[Any, ...]:
    """Killed in epoch 2, after the checkpoint of epoch 1, and started again."""
    assert training(runtime, folder, stop=2) == ()
    return training(runtime, folder)


def diverging_training(runtime: Runtime, folder: Path) -> str:
    with pytest.raises(StageError) as raised:
        training(runtime, folder, lr=1e30)
    return str(raised.value)


def numbers(history: list[dict[str, Any]]) -> list[list[float]]:
    return [[record[name] for name in ("loss", "train_error", "protected", "others", "lr")] for record in history]


def test_training_is_that_of_one_process(cpu: Runtime, tmp_path: Path, pair: Pair) -> None:
    wanted, _, labels, embeddings = training(cpu, tmp_path)
    mine, other = pair["training"]
    assert numbers(mine[0]) == numbers(other[0]), "the ranks disagree"
    for one, two in zip(numbers(mine[0]), numbers(wanted), strict=True):
        assert one == pytest.approx(two, abs=1e-4)
    assert np.array_equal(mine[2], labels)
    assert np.allclose(mine[3], embeddings, atol=1e-3)


def test_killed_training_goes_on_to_the_same_end(pair: Pair) -> None:
    whole = pair["training"][0]
    assert [epochs for _, epochs, _, _ in pair["resumed_training"]] == [[2], [2]]
    for history, _, labels, embeddings in pair["resumed_training"]:
        assert numbers(history) == numbers(whole[0])
        assert np.array_equal(labels, whole[2]) and np.array_equal(embeddings, whole[3])


def test_training_that_comes_to_no_numbers_ends_on_every_rank(pair: Pair) -> None:
    mine, other = pair["diverging_training"]
    assert mine == other and "diverging_training: epoch 1 of 2 ended with a loss or weights that are not finite numbers" in mine


def sums(runtime: Runtime, folder: Path) -> list[Tensor]:
    """Sums and collections of tensors of many kinds, long ones too."""
    ranks, given = runtime.ranks, torch.Generator().manual_seed(runtime.ranks.rank)
    long = torch.rand(1_300_001, generator=given)
    found = [ranks.sum_(long.clone()), ranks.sum_(long[:6].double().view(2, 3)), ranks.sum_(torch.tensor(ranks.rank + 1))]
    return [*found, ranks.gather(torch.full((2, 3), ranks.rank)), ranks.gather(long[1:4].bfloat16()), ranks.sum_(torch.zeros(0))]


def test_sums_are_right_and_the_same_everywhere(pair: Pair) -> None:
    long = [torch.rand(1_300_001, generator=torch.Generator().manual_seed(rank)) for rank in (0, 1)]
    together = [long[0] + long[1], (long[0][:6].double() + long[1][:6].double()).view(2, 3), torch.tensor(3)]
    wanted = [*together, torch.tensor([[[0] * 3] * 2, [[1] * 3] * 2]), torch.stack([one[1:4].bfloat16() for one in long]), torch.zeros(0)]
    for found in pair["sums"]:
        assert len(found) == len(wanted)
        assert all(one.dtype == other.dtype and torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def over_sockets(runtime: Runtime, folder: Path) -> None:
    """A step without shared memory; then rank 1 fails while rank 0 waits for it."""
    assert runtime.ranks.memory is None
    torch.save(step_of_each_size(runtime, folder), folder / f"step{runtime.ranks.rank}")
    if runtime.ranks.rank == 1:
        raise ValueError("the disk of rank 1 is full")
    runtime.ranks.sum_(torch.zeros(3))


def test_sockets_do_as_well_and_an_error_on_one_rank_ends_all(cpu: Runtime, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as raised:
        run_ranks(over_sockets, tmp_path, in_memory=False)
    assert "the disk of rank 1 is full" in str(raised.value)
    assert "another one ended" in str(raised.value)
    for rank in (0, 1):
        same_steps(torch.load(tmp_path / f"step{rank}"), step_of_each_size(cpu, tmp_path))


def left_alone(runtime: Runtime, folder: Path) -> str:
    """Rank 1 goes; rank 0, which waits for it in shared memory, must not wait for ever."""
    memory = runtime.ranks.memory
    if memory is None:
        return "went" if runtime.ranks.rank else "said"  # nothing to try: not on this machine
    if runtime.ranks.rank == 1:
        memory.leave()
        return "went"
    with pytest.raises(StageError, match="another process"):
        runtime.ranks.sum_(torch.zeros(3))
    return "said"


def test_a_rank_that_is_left_alone_says_so(pair: Pair) -> None:
    assert pair["left_alone"] == ["said", "went"]


def disagree(runtime: Runtime, folder: Path) -> str:
    runtime.ranks.agree("same", "noise")
    with pytest.raises(StageError, match=r"checkpoint: .*0, 1"):
        runtime.ranks.agree(runtime.ranks.rank, "checkpoint")
    return "said"


def test_ranks_that_resume_from_different_states_say_so(pair: Pair) -> None:
    assert pair["disagree"] == ["said", "said"]


JOBS = (
    step_of_each_size, noise_search, released_search, robust_search, bound_search, deep_search, adversarial, known, training,
    diverging_training, resumed_training, disagree, sums, left_alone,
)  # fmt: skip


def every_job(runtime: Runtime, folder: Path) -> dict[str, Any]:
    return {job.__name__: job(runtime, folder / job.__name__) for job in JOBS}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """What each job gave in each of two processes."""
    one, two = run_ranks(every_job, tmp_path_factory.mktemp("pair"))
    return {name: [one[name], two[name]] for name in one}

"""Recognisers: a backbone and a head behind one input convention, and weights read from safetensors by path.

Everything outside works on float RGB crops in [0, 1], NCHW, 112×112 px, so that epsilon is always in units of 1/255 of a pixel. The
resize to the model's input size and the normalisation live inside the wrapper, where the noise's gradient passes through them.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import StageError
from pipeline.models import inception, mobilefacenet
from pipeline.models.backbones import make_backbone
from pipeline.models.heads import ArcFaceHead


class Recogniser(nn.Module):
    """A face recogniser that names identities, from crops in [0, 1].

    Args:
        classes: number of identities.
        input_size: crops are resized to this, px (bilinear, antialiased); InceptionResnetV1 needs at least 75.
        dropout: probability before the embedding layer.
        normalise: feed the network (255 x − 127.5) / 128, as facenet-pytorch's weights expect, rather than x in [0, 1].
        model: backbone, as `TrainConfig.model` names them.
        arcface: (scale, margin) of an ArcFace head; None: softmax.
    """

    def __init__(
        self,
        *,
        classes: int,
        input_size: int,
        dropout: float,
        normalise: bool = True,
        model: str = "inception-resnet-v1",
        arcface: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        assert input_size >= 75, input_size
        self.input_size, self.normalise = input_size, normalise
        self.network: Any
        self.network, linear = make_backbone(model, classes=classes, dropout=dropout)
        self.head: nn.Linear | ArcFaceHead = linear if arcface is None else ArcFaceHead(linear.weight, scale=arcface[0], margin=arcface[1])

    def prepare(self, x_BCHW: Tensor) -> Tensor:
        """Resize, and where asked normalise, float crops in [0, 1]."""
        if x_BCHW.shape[-1] != self.input_size:
            size = (self.input_size, self.input_size)
            x_BCHW = F.interpolate(x_BCHW, size=size, mode="bilinear", antialias=True, align_corners=False)
        return (x_BCHW * 255 - 127.5) / 128 if self.normalise else x_BCHW

    def forward(self, x_BCHW: Tensor, label_B: Tensor | None = None) -> Tensor:
        """Logits, float32 (B, classes), of float crops in [0, 1], NCHW; labels (B,) int64 let an ArcFace head put its margin."""
        embedding = self.network(self.prepare(x_BCHW))
        if isinstance(self.head, ArcFaceHead):
            return self.head(embedding, label_B)
        return self.head(embedding).float()

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """L2-normalised embeddings (B, 512), float32."""
        return F.normalize(self.network(self.prepare(x_BCHW)).float(), dim=1)

    def embed_and_classify(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """L2-normalised embeddings (B, 512) and logits (B, classes), float32, from one forward pass. Eval mode only."""
        assert not self.training
        embedding = self.network(self.prepare(x_BCHW))
        return F.normalize(embedding.float(), dim=1), self.head(embedding).float()

    def tensors(self) -> dict[str, Tensor]:
        """Backbone and head under the names facenet-pytorch gives them (`logits.weight`), ready to be saved."""
        head = {f"logits.{name}": tensor for name, tensor in self.head.state_dict().items()}
        return {name: tensor.contiguous() for name, tensor in (self.network.state_dict() | head).items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Load what `tensors` gave; `RuntimeError` where names or shapes differ."""
        cut = len("logits.")
        self.network.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith("logits.")})
        self.head.load_state_dict({name[cut:]: tensor for name, tensor in tensors.items() if name.startswith("logits.")})


def make_recogniser(
    *,
    classes: int,
    input_size: int,
    dropout: float,
    normalise: bool,
    seed: int,
    weights: Path | None = None,
    model: str = "inception-resnet-v1",
    arcface: tuple[float, float] | None = None,
) -> Recogniser:
    """A recogniser with weights drawn by `seed`, or with a pretrained backbone and a new head drawn by `seed`.

    Args:
        weights: safetensors of the backbone; tensors of another head (`logits.*`) are left out. None: from scratch.

    Raises:
        StageError: the file is missing, damaged or of another network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Recogniser(classes=classes, input_size=input_size, dropout=dropout, normalise=normalise, model=model, arcface=arcface)
    if weights is not None:
        load_backbone(made, weights)
    return made


def load_backbone(model: Recogniser, weights: Path) -> None:
    """Load everything but the head from safetensors into `model`, cast to float32."""
    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise StageError(f"{weights}: not readable as safetensors ({error})") from None
    tensors = {name: tensor.float() for name, tensor in tensors.items() if not name.startswith("logits.")}
    try:
        model.network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise StageError(f"{weights}: not the weights of {type(model.network).__name__} ({reason[:160]})") from None


def load_trained(weights: Path, *, classes: int, input_size: int, normalise: bool, model: str = "inception-resnet-v1") -> Recogniser:
    """A recogniser with a softmax head as the train stage left it, head and all; `StageError` if the file is missing or damaged."""
    made = Recogniser(classes=classes, input_size=input_size, dropout=0.0, normalise=normalise, model=model)
    try:
        made.load_tensors(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StageError(f"{weights}: damaged ({str(error).splitlines()[0]}); delete its folder and run again") from None
    return made


def for_inference(model: nn.Module, *, bf16: bool) -> nn.Module:
    """A copy of a recogniser in eval mode that is quicker to ask: batch norms folded into convolutions, none trainable.

    Gradients of the input go through as before. A network that nothing is known about is returned itself, in eval mode. With
    `bf16` the weights are rounded once instead of in each call; it is then called under autocast, as `model`.
    """
    if not isinstance(model, Recogniser) or (room := room_of(model)) is None:
        return model.eval()
    tensors = (*model.parameters(), *model.buffers())
    made = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()  # modules alone are copied
    for module in made.modules():
        for name, tensor in list(module.named_parameters(recurse=False)):
            place = torch.empty_like(tensor, dtype=torch.bfloat16 if bf16 else tensor.dtype)
            setattr(module, name, nn.Parameter(place, requires_grad=False))
    room.fold(made.network)
    renew(made, model)
    return made


def renew(made: nn.Module, model: nn.Module) -> None:
    """Give what `for_inference` made of `model` the weights that it has now; tensors stay where they are."""
    if made is model:
        model.eval()
        return
    assert isinstance(made, Recogniser) and isinstance(model, Recogniser)
    room = room_of(model)
    assert room is not None
    room.refold(made.network, model.network)
    made.head.load_state_dict(model.head.state_dict())


def room_of(model: Recogniser) -> Any:
    """The module with `fold` and `refold` for the recogniser's backbone; None where there is none."""
    if isinstance(model.network, mobilefacenet.MobileFaceNet):
        return mobilefacenet
    return inception if any(isinstance(module, inception.QuickBlock) for module in model.network.modules()) else None

"""The models that examples/train.py trains, and their data, which comes with Python or with a package: no downloads.

A model is a module that maps a batch to its mean loss, which is computed in float32 whatever dtype the parameters have.
Which optimizer trains it, on which device, is not known here.
"""

from __future__ import annotations

import random
import re
import sysconfig
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SIZES = ("tiny", "small", "medium")
Batch = tuple[Tensor, ...]


class Data(NamedTuple):
    batches: Iterator[Batch]  # without end
    validation: Batch


class Model(NamedTuple):
    sizes: dict[str, Any]  # by the names in SIZES
    make: Callable[[Any], nn.Module]  # from a size
    data: Callable[[Any, int, int], Data]  # from a size, the characters of text to read, and a seed
    characters: int  # read by default; 0 where the data is no text
    unit: str  # of which the loss is the mean


def read_text(pattern: str, limit: int) -> str:
    """Up to ``limit`` characters of the standard library's modules, in an order that only their names decide."""
    folder = Path(sysconfig.get_path("stdlib"))
    others = {"site-packages", "dist-packages", "test", "tests"}  # not the library's, or not installed everywhere
    files = [file for file in sorted(folder.glob(pattern)) if others.isdisjoint(file.relative_to(folder).parts)]
    if not files:
        raise SystemExit(f"no source files of the standard library in {folder}")
    random.Random(0).shuffle(files)
    text, length = [], 0
    for file in files:
        text.append(file.read_text(encoding="utf-8", errors="replace"))
        if (length := length + len(text[-1])) >= limit:
            break
    return "".join(text)[:limit]


def sequences(tokens: Tensor, context: int, batch: int, seed: int, split: Callable[..., Batch]) -> Data:
    """Runs of ``context + 1`` tokens, each batch split with a generator; the last tenth of the text is held out."""
    training, held_out = tokens.tensor_split([len(tokens) * 9 // 10])

    def at(text: Tensor, starts: Tensor, generator: torch.Generator) -> Batch:
        return split(text[starts[:, None] + torch.arange(context + 1)], generator)

    def batches() -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            starts = torch.randint(len(training) - context, (batch,), generator=generator)
            yield at(training, starts, generator)

    starts = torch.linspace(0, len(held_out) - context - 1, max(64, 4 * batch)).long()
    return Data(batches(), at(held_out, starts, torch.Generator().manual_seed(seed)))


class TransformerSize(NamedTuple):
    layers: int
    width: int
    heads: int
    context: int
    batch: int


class CharTransformer(nn.Module):
    def __init__(self, size: TransformerSize, vocabulary: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        self.characters = nn.Embedding(vocabulary, size.width)
        self.positions = nn.Parameter(0.3 * torch.randn(size.context, size.width))
        layer = partial(nn.TransformerEncoderLayer, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.ModuleList(layer(size.width, size.heads, 4 * size.width, dropout) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, vocabulary)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(size.context))

    def forward(self, chars: Tensor, following: Tensor) -> Tensor:
        """The mean cross-entropy of the following characters."""
        x = self.characters(chars) + self.positions
        for layer in self.layers:
            x = layer(x, src_mask=self.mask, is_causal=True)
        return nn.functional.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), following.flatten())


def characters(size: TransformerSize, limit: int, seed: int) -> Data:
    text = bytearray(read_text("*.py", limit), "ascii", "replace")
    tokens = torch.frombuffer(text, dtype=torch.uint8).long()
    return sequences(tokens, size.context, size.batch, seed, lambda run, _: (run[:, :-1], run[:, 1:]))


class ConvSize(NamedTuple):
    blocks: int  # of each of three stages
    width: int  # of the first stage; doubled from stage to stage
    batch: int


class Residual(nn.Module):
    """The block of He et al. 2016, with a projection where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if (channels, stride) != (width, 1):
            convolution = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.residual(x) + self.shortcut(x))


class ConvNet(nn.Module):
    def __init__(self, size: ConvSize, classes: int = 10) -> None:
        super().__init__()
        widths = [size.width << stage for stage in range(3)]
        convolution = nn.Conv2d(1, size.width, 3, padding=1, bias=False)
        layers: list[nn.Module] = [convolution, nn.BatchNorm2d(size.width), nn.ReLU()]
        for channels, width in zip([size.width, *widths], widths, strict=False):
            layers.append(Residual(channels, width, stride=width // channels))
            layers += [Residual(width, width, stride=1) for _ in range(size.blocks - 1)]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))

    def forward(self, images: Tensor, digits: Tensor) -> Tensor:
        """The mean cross-entropy of the digits."""
        return nn.functional.cross_entropy(self.layers(images).float(), digits)


def digits(size: ConvSize, limit: int, seed: int) -> Data:
    """Images of 8 x 8; those of training are moved by up to a pixel, for 1,400 are soon known by heart."""
    from sklearn.datasets import load_digits  # the other models need none of it
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 1, 8, 8).astype("float32")
    split = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    x, held_out, y, held_out_y = map(torch.from_numpy, split)
    moved = nn.functional.pad(x, (1, 1, 1, 1)).unfold(2, 8, 1).unfold(3, 8, 1)[:, 0]  # image, down, right, 8, 8

    def batches() -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            for batch in torch.randperm(len(x), generator=generator).split(size.batch)[: len(x) // size.batch]:
                down, right = torch.randint(3, (2, size.batch), generator=generator)
                yield moved[batch, down, right][:, None], y[batch]

    return Data(batches(), (held_out, held_out_y))


class EmbeddingSize(NamedTuple):
    vocabulary: int
    width: int
    context: int
    batch: int


class WordPredictor(nn.Module):
    """The log-bilinear model (Mnih & Hinton 2007) with a sampled softmax (Jean et al. 2015), as in recommenders.

    Nearly all parameters are in two tables, of which a step uses few rows and updates all: gradients are dense.
    """

    def __init__(self, size: EmbeddingSize) -> None:
        super().__init__()
        self.context, self.following = (nn.Embedding(size.vocabulary, size.width) for _ in range(2))
        for table in (self.context, self.following):
            nn.init.normal_(table.weight, std=0.02)
        self.positions = nn.Parameter(torch.ones(size.context, size.width))
        self.norm = nn.LayerNorm(size.width)

    def forward(self, words: Tensor, choices: Tensor) -> Tensor:
        """The mean cross-entropy of the first choice, which is the word that follows."""
        x = self.norm((self.context(words) * self.positions).sum(1))
        scores = (self.following(choices) @ x[:, :, None]).squeeze(2)
        again = choices[:, 1:] == choices[:, :1]
        scores = torch.cat([scores[:, :1], scores[:, 1:].masked_fill(again, -torch.inf)], 1)
        return nn.functional.cross_entropy(scores.float(), torch.zeros_like(choices[:, 0]))


def words(size: EmbeddingSize, limit: int, seed: int, wrong: int = 20) -> Data:
    """The names and words of the text, hashed into the vocabulary. To each that follows, wrong choices at random."""
    found = re.findall(r"[^\W\d]\w*", read_text("**/*.py", limit))
    tokens = torch.tensor([zlib.crc32(word.encode()) % size.vocabulary for word in found])

    def split(run: Tensor, generator: torch.Generator) -> Batch:
        others = torch.randint(size.vocabulary, (len(run), wrong), generator=generator)
        return run[:, :-1], torch.cat([run[:, -1:], others], 1)

    return sequences(tokens, size.context, size.batch, seed, split)


MODELS = {
    "transformer": Model(
        sizes={
            "tiny": TransformerSize(2, 64, 2, 64, 12),
            "small": TransformerSize(4, 128, 4, 64, 12),
            "medium": TransformerSize(6, 256, 8, 96, 12),
        },
        make=CharTransformer,
        data=characters,
        characters=10**6,
        unit="character",
    ),
    "convnet": Model(
        sizes={"tiny": ConvSize(1, 8, 64), "small": ConvSize(2, 32, 64), "medium": ConvSize(3, 64, 64)},
        make=ConvNet,
        data=digits,
        characters=0,
        unit="image",
    ),
    "embedding": Model(
        sizes={
            "tiny": EmbeddingSize(2000, 16, 8, 128),
            "small": EmbeddingSize(30_000, 64, 8, 256),
            "medium": EmbeddingSize(60_000, 128, 8, 256),
        },
        make=WordPredictor,
        data=words,
        characters=5 * 10**6,
        unit="word",
    ),
}

"""Where the prompts and responses of IFT, EFT and step-pair data (PPD) lie in an embedding (the paper's Figure 2).

Knows texts, embeddings and t-SNE. Does not know where the texts come from. openTSNE and wordllama are of the `report`
extra.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from psr.errors import UsageError

Vectors = npt.NDArray[np.float32]
SHIPPED = "wordllama"
NEIGHBOURS = 5


def distribution(
    texts: Mapping[str, Mapping[str, Sequence[str]]], embedding: str, perplexity: float, seed: int
) -> dict[str, Any]:
    """Points in the plane and how far the sets lie apart, of `texts[part][set]`, for each part (prompts, responses).

    Args:
        texts: at least two texts of every set.
        embedding: "wordllama", whose package brings its weights along, or the Hugging Face folder or name of a model.
        perplexity: of t-SNE; lowered where there are fewer than three times as many texts.
        seed: of t-SNE.
    """
    points, separation = [], {}
    for part, sets in texts.items():
        vectors = {name: embed(some, embedding) for name, some in sets.items()}
        separation[part] = {f"{a}-{b}": separability(vectors[a], vectors[b]) for a, b in combinations(vectors, 2)}
        owners = [name for name, some in vectors.items() for _ in some]
        places = in_the_plane(np.concatenate(list(vectors.values())), perplexity, seed)
        points += [
            {"set": name, "part": part, "x": round(float(x), 3), "y": round(float(y), 3)}
            for name, (x, y) in zip(owners, places, strict=True)
        ]
    return {"embedding": embedding, "perplexity": perplexity, "points": points, "separation": separation}


def embed(texts: Sequence[str], embedding: str) -> Vectors:
    """One vector per text: (texts, dimensions)."""
    return _embed_shipped(texts) if embedding == SHIPPED else _embed_by_model(texts, embedding)


def _embed_shipped(texts: Sequence[str]) -> Vectors:
    try:
        import wordllama
    except ImportError:
        raise UsageError(f"embedding is {SHIPPED!r}, which is not installed: pip install 'psr[report]'") from None
    # It looks for its own tokenizer in another folder than the one it is packed in, and would download it.
    own = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=own, disable_download=True)
    return np.asarray(model.embed(list(texts)), dtype=np.float32)


def _embed_by_model(texts: Sequence[str], name: str, batch: int = 32, longest: int = 512) -> Vectors:
    """The mean of the last hidden states of a Hugging Face model over the tokens of each text."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModel.from_pretrained(name).eval()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    rows = []
    for start in range(0, len(texts), batch):
        some = list(texts[start : start + batch])
        asked = tokenizer(some, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        asked.pop("token_type_ids", None)
        with torch.inference_mode():
            states = model(**asked).last_hidden_state  # (texts, tokens, dimensions)
        weights = asked["attention_mask"].unsqueeze(-1).to(states.dtype)
        rows.append((states * weights).sum(1) / weights.sum(1).clamp(min=1))
    return torch.cat(rows).float().numpy()


def in_the_plane(vectors: Vectors, perplexity: float, seed: int) -> npt.NDArray[np.float64]:
    """t-SNE by openTSNE: (vectors, 2)."""
    try:
        from openTSNE import TSNE
    except ImportError:
        raise UsageError("t-SNE needs openTSNE, which is not installed: pip install 'psr[report]'") from None
    perplexity = min(perplexity, max(1.0, (len(vectors) - 1) / 3))
    return np.asarray(TSNE(perplexity=perplexity, metric="cosine", random_state=seed, n_jobs=1).fit(vectors))


def separability(a: Vectors, b: Vectors) -> float:
    """How often the nearest neighbours of a vector (by cosine) are mostly of its own set: 1 is apart, about 0.5 mixed.

    Both sets count alike, whatever their sizes; a vector is not its own neighbour.
    """
    both = np.concatenate([a, b])
    both = both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)
    likeness = both @ both.T
    np.fill_diagonal(likeness, -np.inf)
    owner = np.arange(len(both)) >= len(a)
    # Equal texts are equally near to each other: a random order, not the order of the sets, decides among them.
    shuffled = np.random.default_rng(0).permutation(len(both))
    count = min(NEIGHBOURS, len(both) - 1)
    nearest = shuffled[np.argsort(-likeness[:, shuffled], axis=1, kind="stable")[:, :count]]
    own = (owner[nearest] == owner[:, None]).mean(axis=1) > 0.5
    return float((own[~owner].mean() + own[owner].mean()) / 2)

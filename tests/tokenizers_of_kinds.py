"""Small real tokenizers that behave as those of known models do, for the tests."""

import json

from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from tests.conftest import train_bpe

CORPUS = [f"Step {i}: We add the two numbers {i}.\n" for i in range(50)]


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """As Llama 2's: a space before every text, which decoding takes away; <s> begins it; bytes for what is unknown."""
    marked = Tokenizer(models.BPE(unk_token="<unk>"))
    marked.normalizer = normalizers.Replace(" ", "▁")
    alphabet = sorted({*"".join(CORPUS).replace("\n", ""), "▁", *"+-[]AB\\{}boxed"})
    trainer = trainers.BpeTrainer(
        vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    marked.train_from_iterator([line.strip() for line in CORPUS], trainer)
    vocabulary = marked.get_vocab()
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    merges = [tuple(merge) for merge in json.loads(marked.to_str())["model"]["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )


def eos_appending() -> PreTrainedTokenizerFast:
    """Puts its EOS after every text, and a token that begins it before."""
    bpe = train_bpe("words")
    begin, end = "!", "<eos>"
    ids = [(token, bpe.convert_tokens_to_ids(token)) for token in (begin, end)]
    bpe.backend_tokenizer.post_processor = TemplateProcessing(single=f"{begin} $A {end}", special_tokens=ids)
    return bpe

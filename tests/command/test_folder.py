"""A folder that transformers loads, and text lines: from there to answers."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dendrofx.artifact.load import load
from dendrofx.command.group import group

WORDS = ["the", "a", "good", "bad", "film", "was", "very", "not", "so", "dull", "fine"]


@pytest.mark.real("transformers")
def test_a_folder_and_texts(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertForSequenceClassification(BertConfig(vocab_size=16, max_position_embeddings=32, **sizes)).eval()
    model.save_pretrained(tmp_path / "bert")
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path / "bert")
    draw = random.Random(0)
    lines = [" ".join(draw.choices(WORDS, k=draw.randint(2, 12))) for _ in range(120)]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    bert, texts, out = str(tmp_path / "bert"), str(tmp_path / "texts.txt"), str(tmp_path / "m.pt")
    asked = ["--dead-rows", "attention_mask", "--budget", "0", "--tune-seconds", "0", "-o", out]
    ran = CliRunner().invoke(group, ["transform", bert, "--calibration", texts, *asked])
    assert ran.exit_code == 0, ran.output
    assert (
        type(load(out)(**tokenizer(lines[:2], padding=True, return_tensors="pt"))).__name__
        == "SequenceClassifierOutput"
    )
    answers = str(tmp_path / "y.npy")
    ran = CliRunner().invoke(group, ["run", out, texts, "--tokenizer", bert, "-o", answers, "--batch", "120"])
    assert ran.exit_code == 0, ran.output
    with torch.no_grad():
        wanted = model(**tokenizer(lines, padding=True, return_tensors="pt")).logits
    np.testing.assert_allclose(np.load(answers), wanted.numpy(), atol=1e-5)

"""Compares `flotilla tokenize` on SentencePiece models with PyPI's sentencepiece: trains small models of several kinds.

  sp_oracle.py TOOL DIR [--count N] [MODEL...]    MODEL: further tokenizer.model files
Unigram models are left out: versions of the library break their ties differently."""
import argparse
import io
import pathlib
import random
import shutil
import sys

import sentencepiece

import oracle
import synthetic

KINDS = {
    "bpe-bytes": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
                  "remove_extra_whitespaces": False, "add_dummy_prefix": False},
    "bpe-llama2": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
                   "remove_extra_whitespaces": False, "add_dummy_prefix": True},
    "bpe-plain": {"model_type": "bpe", "normalization_rule_name": "identity"},
    "bpe-nfkc": {"model_type": "bpe", "byte_fallback": True},
    "bpe-symbols": {"model_type": "bpe", "normalization_rule_name": "identity", "user_defined_symbols": ["ab", "<x y>", "\n\n", "▁▁▁"],
                    "control_symbols": ["<ctl>"], "byte_fallback": True, "remove_extra_whitespaces": False},
    "bpe-user": {"model_type": "bpe", "normalization_rule_name": "identity", "user_defined_symbols": ["ab", "\n\n", "123"],
                 "byte_fallback": True, "remove_extra_whitespaces": False, "split_by_whitespace": False},
    "bpe-suffix": {"model_type": "bpe", "normalization_rule_name": "identity", "treat_whitespace_as_suffix": True},
}


def train(options):
    out = io.BytesIO()
    text = [line.rstrip("\n") for line in synthetic.corpus()]
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(text), model_writer=out, vocab_size=900, character_coverage=0.99,
                                             minloglevel=2, **options)
    return out.getvalue()


def compare(tool, directory, count, seed):
    processor = sentencepiece.SentencePieceProcessor(model_file=f"{directory}/tokenizer.model")
    rng = random.Random(seed)
    words = " ".join(synthetic.corpus()[:3000]).split() + synthetic.OTHER_SCRIPTS.split()
    texts = [oracle.random_text(rng, words, ["ab", "<x y>", "<ctl>", "   "]) for _ in range(count)]
    bad = 0
    for text, want, have in zip(texts, processor.encode(texts), oracle.run_tool(tool, directory, texts), strict=True):
        if want != have:
            bad += 1
            if bad < 4:
                print(f"{directory}: encode {text!r}\n  want {processor.id_to_piece(want)}\n  have {processor.id_to_piece(have)}")
    size = processor.get_piece_size()
    byte_ids = [i for i in range(size) if processor.is_byte(i)] or [5]
    lists = [[rng.randrange(size) if rng.random() < 0.7 else rng.choice(byte_ids) for _ in range(rng.randint(0, 20))] for _ in range(count)]
    lists += processor.encode(texts)
    for ids, want, have in zip(lists, [processor.decode(i) for i in lists], oracle.run_tool(tool, directory, lists, "--decode"), strict=True):
        if want != have:
            bad += 1
            if bad < 7:
                print(f"{directory}: decode {processor.id_to_piece(ids)}\n  want {want!r}\n  have {have!r}")
    print(f"{directory}: {len(texts)} texts, {len(lists)} id lists, {bad} differ")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool")
    parser.add_argument("dir")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    directories = []
    for name, options in KINDS.items():
        out = pathlib.Path(args.dir, name)
        out.mkdir(parents=True, exist_ok=True)
        if not (out / "tokenizer.model").exists():
            (out / "tokenizer.model").write_bytes(train(options))
        directories.append(out)
    for i, model in enumerate(args.models):
        out = pathlib.Path(args.dir, f"given-{i}")
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model, out / "tokenizer.model")
        directories.append(out)
    sys.exit(1 if sum(compare(args.tool, str(d), args.count, args.seed) for d in directories) else 0)


if __name__ == "__main__":
    main()

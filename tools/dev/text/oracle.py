"""Compares `flotilla tokenize` with Hugging Face's tokenizers (pip install tokenizers), and writes test vectors from them.

  oracle.py make DIR [--gguf FILE]              tokenizers into DIR/<name>/tokenizer.json
  oracle.py fuzz TOOL DIR... [--count N]        random texts and ids through both; exits 1 at a difference
  oracle.py vectors DIR... [--count N]          DIR/vectors.jsonl from DIR/tokenizer.json
Never part of serving or of the build."""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import unicodedata

from tokenizers import Tokenizer

import smollm2
import synthetic

# Python 3.11's tables are Unicode 14's, which the promise is about. A later Python's would include later code points.
ASSIGNED = [c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
BY_CLASS = {}
for c in ASSIGNED:
    BY_CLASS.setdefault(unicodedata.category(chr(c)), []).append(c)
PIECES = ["'s", "'S", "'ſ", "'re", "'LL", "I'm", "don't", " ", "  ", "    ", "\n", "\r\n", "\t", "\n\n \n", "\u00a0", "\u3000", "\u2581",
          "\u2581\u2581", "1", "12", "123", "1234567", "½", "٣", "x = 3.14;", "<0x41>", "e\u0301\u0323", "\u1100\u1161\u11a8", "ﬁ", "İ", "ẞ",
          "\u212b", "K", "\u0344", "\u0f73\u0f71", "👩‍👩‍👧", "🇩🇪", "你好", "，", "。", "。\n", "カタカナ", "مرحبا", "नमस्ते", "\u0000", "\u0001\u001f", "\u007f",
          "\u00ad", "\ufeff", "\u200b", "\u200d", "\u180e", "\u0085", "\u2028", "__init__", "CamelCaseWord", "HTTPServer", "a" * 30, "aaaa",
          "!" * 12, "-" * 40, " " * 60, "=" * 3, "```python\n", "http://x.y/z?a=b&c=d", "word", "word,", "swordfish", "<left>", "<right>",
          "<both>", "ab", "abc", "abcd", "Ünter", "ünter", " two words ", "x", "²", "①", "Ⅷ", "ʼn", "ŉ", "ſtop", "stop"]


def random_text(rng, words, extra):
    out = []
    for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 30])):
        kind = rng.random()
        if kind < 0.35:
            out.append(rng.choice(words))
            out.append(rng.choice([" ", " ", " ", "", ", ", ".\n", "'s "]))
        elif kind < 0.65:
            out.append(rng.choice(PIECES))
        elif kind < 0.75 and extra:
            token = rng.choice(extra)
            out.append(token if rng.random() < 0.8 else token[:rng.randint(1, len(token))])
        elif kind < 0.85:
            group = BY_CLASS[rng.choice(sorted(BY_CLASS))]
            out.append("".join(chr(rng.choice(group)) for _ in range(rng.randint(1, 4))))
        elif kind < 0.92:
            out.append("".join(chr(rng.choice(ASSIGNED)) for _ in range(rng.randint(1, 6))))
        else:
            marks = BY_CLASS["Mn"]
            out.append(chr(rng.choice(ASSIGNED)) + "".join(chr(rng.choice(marks)) for _ in range(rng.randint(1, 5))))
    return "".join(out)


def texts_for(tokenizer, count, seed):
    rng = random.Random(seed)
    words = " ".join(synthetic.corpus()[:3000]).split() + synthetic.OTHER_SCRIPTS.split()
    extra = sorted(t.content for t in tokenizer.get_added_tokens_decoder().values())
    return [random_text(rng, words, extra) for _ in range(count)]


def ids_for(tokenizer, count, seed):
    rng = random.Random(seed)
    limit = max(tokenizer.get_vocab().values()) + 1
    byte_ids = [i for t, i in tokenizer.get_vocab().items() if len(t) == 6 and t.startswith("<0x")]
    lists = []
    for _ in range(count):
        ids = [rng.randrange(limit + 5) for _ in range(rng.choice([0, 1, 2, 5, 20]))]
        for _ in range(rng.choice([0, 0, 1, 2]) if byte_ids else 0):
            run = [tokenizer.token_to_id(f"<0x{b:02X}>") for b in rng.choice(["é", "😀", "\n", "a你"]).encode()]
            at = rng.randint(0, len(ids))
            ids[at:at] = run if rng.random() < 0.7 else run[:-1]
        lists.append(ids)
    return lists


def run_tool(tool, directory, values, *flags):
    lines = "".join(json.dumps(v) + "\n" for v in values)
    done = subprocess.run([tool, "tokenize", directory, "--jsonl", *flags], input=lines.encode(), capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{directory}: {done.stderr.decode()}")
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def decode(tokenizer, ids):
    """None where the reference panics: its Strip does on tokens shorter than what it may cut."""
    try:
        return tokenizer.decode(ids, skip_special_tokens=False)
    except BaseException as error:  # noqa: BLE001 (Rust panics are no Exceptions)
        if type(error).__name__ != "PanicException":
            raise
        return None


def fuzz_one(tool, directory, count, seed):
    tokenizer = Tokenizer.from_file(f"{directory}/tokenizer.json")
    bad = 0
    texts = texts_for(tokenizer, count, seed)
    expected = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    got = run_tool(tool, directory, texts)
    for text, want, have in zip(texts, expected, got, strict=True):
        if want != have:
            bad += 1
            if bad <= 3:
                print(f"{directory}: encode {text!r}\n  want {[tokenizer.id_to_token(i) for i in want]}\n"
                      f"  have {[tokenizer.id_to_token(i) for i in have]}")
    lists = ids_for(tokenizer, count, seed) + expected[: count // 4]
    for ids, want, have in zip(lists, [decode(tokenizer, i) for i in lists],
                               run_tool(tool, directory, lists, "--decode"), strict=True):
        if want is not None and want != have:
            bad += 1
            if bad <= 6:
                print(f"{directory}: decode {[tokenizer.id_to_token(i) for i in ids]}\n  want {want!r}\n  have {have!r}")
    print(f"{directory}: {len(texts)} texts, {len(lists)} id lists, {bad} differ")
    return bad


def make(directory, gguf):
    for name, build in synthetic.all_tokenizers():
        out = pathlib.Path(directory, name)
        out.mkdir(parents=True, exist_ok=True)
        build().save(str(out / "tokenizer.json"), pretty=False)
    if gguf:
        out = pathlib.Path(directory, "smollm2")
        out.mkdir(exist_ok=True)
        tokenizer, config = smollm2.tokenizer_files(gguf)
        (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
        (out / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False))


def vectors(directory, count):
    """One line per case: {"text", "ids"}, "plain_ids" with special tokens left as text, or {"decode": ids, "text"}."""
    tokenizer = Tokenizer.from_file(f"{directory}/tokenizer.json")
    texts = texts_for(tokenizer, count, 7)
    with open(f"{directory}/vectors.jsonl", "w", encoding="utf-8") as f:
        tokenizer.encode_special_tokens = True
        plain = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
        tokenizer.encode_special_tokens = False
        for text, encoding, ids in zip(texts, tokenizer.encode_batch(texts, add_special_tokens=False), plain, strict=True):
            f.write(json.dumps({"text": text, "ids": encoding.ids, **({"plain_ids": ids} if ids != encoding.ids else {})},
                               separators=(",", ":")) + "\n")
        for ids in ids_for(tokenizer, count // 2, 7):
            if (text := decode(tokenizer, ids)) is not None:
                f.write(json.dumps({"decode": ids, "text": text}, separators=(",", ":")) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("make")
    command.add_argument("dir")
    command.add_argument("--gguf")
    command = commands.add_parser("fuzz")
    command.add_argument("tool")
    command.add_argument("dirs", nargs="+")
    command.add_argument("--count", type=int, default=2000)
    command.add_argument("--seed", type=int, default=1)
    command = commands.add_parser("vectors")
    command.add_argument("dirs", nargs="+")
    command.add_argument("--count", type=int, default=60)
    args = parser.parse_args()
    if args.command == "make":
        make(args.dir, args.gguf)
    elif args.command == "vectors":
        for directory in args.dirs:
            vectors(directory, args.count)
    else:
        sys.exit(1 if sum(fuzz_one(args.tool, d, args.count, args.seed) for d in args.dirs) else 0)


if __name__ == "__main__":
    main()

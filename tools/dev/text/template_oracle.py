"""Renders templates with PyPI's jinja2, set up as transformers does, and writes what came out as test data.

  template_oracle.py TEMPLATES OUT   TEMPLATES: a folder of *.jinja; OUT: JSON lines {"template"|"file", "context", "want"|"raised"|"failed"}
"""
import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
import jinja2.sandbox

MODEL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
USER = [{"role": "user", "content": "Hi <b>\"you\"</b> é 你好"}]
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello"}, {"role": "user", "content": "  Why? \n"}]
ENDED = CHAT[1:3]
NULLS = [{"role": "user", "content": "2+2"},
         {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {
             "name": "add", "arguments": {"a": 2, "b": [1.5, None, True, "x\ny"]}}}]},
         {"role": "tool", "content": "4", "tool_call_id": "c1"}, {"role": "assistant", "content": "4"}, {"role": "user", "content": "thx"}]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds <numbers> & \"more\" — ünïcode", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"type": "number"}}}, "required": ["a"]}}}]
CONVERSATIONS = [{"messages": USER}, {"messages": CHAT}, {"messages": ENDED, "add_generation_prompt": False},
                 {"messages": NULLS, "tools": TOOLS}, {"messages": CHAT, "tools": TOOLS, "kwargs": {"enable_thinking": False}},
                 {"messages": [{"role": "user", "content": [{"type": "text", "text": "part"}]}]}, {"messages": []}]

# Single constructs. Each is rendered on CHAT with TOOLS.
SNIPPETS = r"""
{{ messages|length }} {{ messages[0].role }} {{ messages[-1]['content']|trim }} {{ messages[99] is defined }} {{ messages[0].nope is defined }}
{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.first }}{{ loop.last }}{{ loop.revindex }}{{ loop.revindex0 }}{% if not loop.last %}, {% endif %}{% endfor %}
{% for m in messages[::-1] %}{{ m.role }} {% endfor %}{% for m in messages[1:] %}{{ m.role }} {% endfor %}{% for m in messages[:-1] %}{{ loop.index0 }}{% endfor %}
{{ 'hello'[1:3] }}{{ 'hello'[::-1] }}{{ 'hello'[-3:] }}{{ 'hello'[:100] }}{{ 'hello'[-100:2] }}{{ 'héllo'[1] }}{{ 'abc'[5] is defined }}{{ [1,2,3][::2] }}
{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.found = true %}{% set ns.n = ns.n + 1 %}{% endif %}{% endfor %}{{ ns.found }} {{ ns.n }}
{% set x = 1 %}{% for i in [1,2] %}{{ x }}{% set x = 5 %}{{ x }}{% endfor %}{{ x }}
{% for i in range(3) %}{% if loop.first %}{% set y = i %}{% endif %}{{ y is defined }}{% endfor %}{{ i is defined }}
{{ none }} {{ true }} {{ false }} {{ 1.0 }} {{ 1e-7 }} {{ 1e20 }} {{ 0.1 + 0.2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 10 % 4 * 2 }}
{{ [1, 'a', none, true, 2.5, {'k': "it's", 'z': 'say "x"'}] }} {{ ('a', 'b')|list }}
{{ tools|tojson }} {{ tools[0]|tojson(indent=2) }} {{ {}|tojson(indent=4) }} {{ []|tojson(indent=4) }} {{ '<é\u2028>'|tojson }} {{ 'é😀'|tojson(ensure_ascii=true) }}
{{ {'b': 1, 'a': [1, {'c': none}]}|tojson(sort_keys=true, separators=(',', ':')) }} {{ 1.0|tojson }} {{ 1e100|tojson }} {{ none|tojson }} {{ true|tojson }}
{{ 'a' ~ 1 ~ none ~ true ~ 2.5 }} {{ 'a' 'b' }} {{ 'x' * 3 }} {{ [0] * 2 }} {{ 'tab\tnew\nquote\'\\ \x41 \u00e9 \q' }}
{{ 1 if false }}|{{ 'a' if messages else 'b' }}|{{ 'a' if not messages else 'b' if tools else 'c' }}
{{ 1 and 2 }} {{ 0 or 'x' }} {{ '' and 1 }} {{ not '' }} {{ 1 < 2 < 3 }} {{ 1 < 2 > 5 }} {{ 'a' in 'abc' }} {{ 0 in [0] }} {{ 'k' in {'k': 0} }} {{ 3 not in [1,2] }} {{ not 1 == 2 }}
{{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' == 'a' }} {{ [1,[0]] == [1,[0]] }} {{ {'a': 0} == {'a': 0} }} {{ none == false }} {{ undef1 == undef2 }} {{ 'a' < 'b' }} {{ [1,2] < [1,3] }}
{{ x is defined }} {{ none is none }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is iterable }} {{ 'a' is iterable }} {{ [] is sequence }} {{ 'a' is sequence }} {{ 1 is number }} {{ true is boolean }} {{ true is number }} {{ 1 is integer }} {{ 1.5 is float }}
{{ tools is not none }} {{ tools is defined and tools is not none }} {{ documents is none }} {{ 4 is divisibleby 2 }} {{ 4 is divisibleby(3) }} {{ 3 is odd }} {{ 'a' is in ['a'] }} {{ 1 is eq 1 }} {{ 1 is sameas true }} {{ undefd is undefined }} {{ raise_exception is defined }} {{ strftime_now is not defined }} {{ 'A' is upper }} {{ true is true }} {{ 1 is true }} {{ namespace is callable }}
{{ '  a b '|trim }}|{{ 'xxaxx'|trim('x') }}|{{ 'ab cd'|title }}|{{ 'aB'|upper }}|{{ 'aB'|lower }}|{{ 'heLLo wORLD'|capitalize }}|{{ 'a-b-c'|replace('-', '+') }}|{{ 'a-b-c'|replace('-', '+', 1) }}|{{ 'é'|upper }}
{{ [3,1,2]|sort }} {{ ['b','A','c']|sort }} {{ [1,2]|first }} {{ [1,2]|last }} {{ []|first is defined }} {{ 'abc'|first }} {{ [1,2,3]|sum }} {{ [1,5,2]|max }} {{ [1,1,2]|unique|list }} {{ 'abc'|reverse }} {{ [1,2]|reverse|list }} {{ [1,2,3,4,5]|batch(2)|list }}
{{ messages|map(attribute='role')|join(', ') }} {{ ['a','b']|map('upper')|list }} {{ messages|selectattr('role', 'equalto', 'user')|list|length }} {{ messages|rejectattr('role', 'in', ['user', 'system'])|map(attribute='role')|list }} {{ [1,2,3,4]|select('even')|list }} {{ [0,1,'']|select|list }} {{ [0,1]|reject|list }} {{ messages|map(attribute='nope', default='-')|join }}
{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c'.split(' ', 1) }} {{ 'a.b.c'.rsplit('.', 1) }} {{ 'x</think>y'.split('</think>')[-1].lstrip('y') }}|{{ 'a\nb'.splitlines() }} {{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x','c')) }} {{ 'aXbX'.replace('X', '', 1) }} {{ '\n a \n'.strip('\n') }}|{{ 'abcabc'.find('c') }} {{ 'abcabc'.rfind('c') }} {{ 'aaa'.count('a') }} {{ '-'.join(['a','b']) }} {{ 'abc'.removeprefix('a') }} {{ 'a=b'.partition('=')[2] }} {{ 'Ab'.nope is defined }}
{{ {'a': 1, 'b': 2}.keys()|list }} {{ {'a': 1}.values()|list }} {{ {'a': 1}.get('a') }} {{ {'a': 1}.get('z') }} {{ {'a': 1}.get('z', 9) }} {% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %} {% for k, v in {'b': 2, 'a': 1}|items %}{{ k }}{{ v }}{% endfor %} {% for k in {'q': 1} %}{{ k }}{% endfor %} {% for k, v in {'b': 2, 'A': 1}|dictsort %}{{ k }}{% endfor %}
{% macro f(a, b='B', c=none) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ f(1) }}{{ f(1, 2) }}{{ f(b=3, a=0) }}{{ f() }}
{% macro wrap() %}<{{ caller() }}>{% endmacro %}{% call wrap() %}body{% endcall %}{% macro each(xs) %}{% for x in xs %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(x) each([1,2]) %}({{ x }}){% endcall %}
{% macro fact(n) %}{% if n > 1 %}{{ n * (fact(n-1)|int) }}{% else %}1{% endif %}{% endmacro %}{{ fact(5) }}
{% set body %}line {{ 1 + 1 }}{% endset %}{{ body }}|{% set up | upper %}abc{% endset %}{{ up }}|{% filter upper %}xyz{% endfilter %}
{% for x in [1,2,3,4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in [] %}a{% else %}empty{% endfor %}{% for x in [1,2,3] if x != 2 %}{{ x }}{{ loop.length }}{% else %}none{% endfor %}{% for x in undefined_thing %}{{ x }}{% endfor %}
{% for x in [1,2,3] %}{{ loop.previtem|default('-') }}{{ loop.nextitem|default('-') }}{{ loop.cycle('a', 'b') }} {{ loop.changed(x // 2) }}{% endfor %}
{% for item in [{'n': 1, 'c': [{'n': 2, 'c': []}]}] recursive %}{{ item.n }}{{ loop.depth }}{% if item.c %}({{ loop(item.c) }}){% endif %}{% endfor %}
{% for a, b in [[1, 2], [3, 4]] %}{{ a }}{{ b }}{% endfor %}{% set p, q = 1, 2 %}{{ p }}{{ q }}{% with z = 3 %}{{ z }}{% endwith %}{{ z is defined }}
{{ '%s is %d of %05.2f %%' % ('a', 3, 2.5) }} {{ '%s' % 'x' }} {{ '{} {1} {k}'.format(1, 2, k=3) if false else '{0}{k}'.format(1, k=3) }} {{ 'a%sb'|format('X') }}
{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\nb'|indent(width=1, first=false) }}|{{ '<a href="x">\'&'|escape }}|{{ 'x'|center(5) }}|{{ 'a b  c'|wordcount }}
{{ '42'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ '3.9'|int }} {{ 3.9|int }} {{ '2.5'|float }} {{ 3|string }} {{ -3|abs }} {{ 2.5|round }} {{ 2.567|round(2) }} {{ none|default('d') }} {{ none|default('d', true) }} {{ nope|default('d') }} {{ nope|d }} {{ ''|default('e', boolean=true) }}
{# comment #}a{#- strip -#}   b   {%- if true -%}   c   {%- endif %}   d {{- ' e ' -}} f
{% raw %}{{ not rendered }} {% if %}{% endraw %}{{ "{{" }}
x{% if true %}
y
{% endif %}
z
   {% if true %}
   kept
   {% endif %}
	{%+ if true %} plus{% endif +%}
end
{{ messages[1].content + '\n' }}{{ messages[0]['content'] | trim + 'x' }}{{ -1|abs }}{{ 1 + 2 * 3 - 4 / 2 }}{{ (1 + 2) * 3 }}{{ 'a' + 'b' | upper }}{{ not true or true }}
{{ messages | tojson | length > 10 }}{{ messages|length - 1 }}{{ (messages|length) ~ 'x' }}{{ messages|length is divisibleby 2 }}
{{ dict(a=1, b='x') }} {{ dict([['a', 1]]) }} {{ range(5)|list }} {{ range(5, 0, -2)|list }} {% set j = joiner(', ') %}{{ j() }}a{{ j() }}b
{{ bos_token }}{{ eos_token }}{{ unk_token is defined }}{{ pad_token }}{{ messages[0].content.upper().lower().title() }}{{ "it's" }}{{ 'a' is string and 'b' is not mapping }}
{{ undefined_thing }}|{{ undefined_thing|length }}|{{ undefined_thing ~ 'x' }}|{{ 'a' in undefined_thing }}|{{ undefined_thing|list }}
{% if messages[0].role == 'system' and messages[0].content is string %}{{ messages[0].content }}{% set loop_messages = messages[1:] %}{% else %}{% set loop_messages = messages %}{% endif %}{{ loop_messages|length }}
{% generation %}g{% endgeneration %}{{ messages.0.role }}{{ messages[0]['role'][0] }}{{ messages[0].get is defined }}{{ messages[0].items()|list|length }}{{ 'straße'.upper() }}{{ 'İ'.lower()|length }}
{{ [[1, 2], [3]]|sum(start=[]) if false else 'n' }}{{ ['a', 'b']|join }}{{ [1, [2, none]]|join('-') }}{{ 'abc'|list }}{{ 'a:b'|replace(':', '')|upper|lower }}{{ [{'a': {'b': 1}}]|map(attribute='a.b')|list }}
""".strip("\n")
RAISING = ["{{ raise_exception('No ' ~ messages|length ~ ' please') }}", "{% if messages %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}"]
FAILING = ["{{ nope.x }}", "{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ nope() }}", "{% for x in none %}{% endfor %}", "{{ messages.append(1) }}", "{{ 5 % 0 }}",
           "{{ nope|tojson }}", "{{ [1] < 'a' }}", "{% set messages.x = 1 %}", "{{ 'a'.nope() }}", "{{ nope + 'x' }}", "{{ 1 in 5 }}"]


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            return jinja2.nodes.Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True)).set_lineno(line)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda fmt: datetime.datetime(2026, 1, 1, 12).strftime(fmt)
    return env


def case(env, source, name, context):
    out = {"file": name} if name else {"template": source}
    out["context"] = context
    values = {"messages": context["messages"], "tools": context.get("tools"), "documents": None,
              "add_generation_prompt": context.get("add_generation_prompt", True), **MODEL, **context.get("kwargs", {})}
    try:
        out["want"] = env.from_string(source).render(**values)
    except jinja2.exceptions.TemplateError as error:
        if type(error) is jinja2.exceptions.TemplateError:
            out["raised"] = str(error)
        else:
            out["failed"] = str(error)
    except Exception as error:  # noqa: BLE001
        out["failed"] = str(error)
    return out


def snippets():
    """One a line; the one that is about line breaks spans several."""
    lines = SNIPPETS.split("\n")
    start, end = lines.index("x{% if true %}"), lines.index("end")
    yield from lines[:start]
    yield "\n".join(lines[start:end + 1]) + "\n"
    yield "\n".join(lines[start:end + 1]).replace("\n", "\r\n")
    yield from lines[end + 1:]


def main():
    env = environment()
    cases = []
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jinja")):
        cases += [case(env, path.read_text(), path.name, context) for context in CONVERSATIONS]
    context = {"messages": CHAT, "tools": TOOLS}
    for source in snippets():
        one = case(env, source, None, context)
        if "want" not in one:
            raise SystemExit(f"jinja2 itself fails: {source}\n  {one}")
        cases.append(one)
    cases += [case(env, source, None, context) for source in RAISING + FAILING]
    with open(sys.argv[2], "w", encoding="utf-8") as f:
        for one in cases:
            f.write(json.dumps(one, ensure_ascii=True) + "\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()

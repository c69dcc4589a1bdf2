"""Suites in the forms of KodCode, BigCodeBench and ClassEval, of our own writing: a right and a wrong program each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """A suite's text, a program that is right, and one that is wrong in `failing` of its tests (by name)."""

    name: str
    right: str
    wrong: str
    tests: str
    failing: tuple[str, ...]


def kod(name: str, right: str, wrong: str, tests: str, *failing: str) -> Example:
    """KodCode: test functions that import from `solution`."""
    first = right.partition("(")[0].removeprefix("async ").removeprefix("def ").removeprefix("class ").partition(":")[0]
    return Example(name, right, wrong, f"from solution import {first}\n{tests}", failing)


KODCODE = [
    kod(
        "add",
        "def add(a, b):\n    return a + b\n",
        "def add(a, b):\n    return a - b\n",
        "def test_small():\n    assert add(1, 2) == 3\n\ndef test_zero():\n    assert add(0, 0) == 0\n",
        "test_small",
    ),
    kod(
        "reverse words",
        "def rev(s):\n    return ' '.join(reversed(s.split()))\n",
        "def rev(s):\n    return s[::-1]\n",
        "def test_two():\n    assert rev('ab cd') == 'cd ab'\n\ndef test_empty():\n    assert rev('') == ''\n",
        "test_two",
    ),
    kod(
        "divide",
        "def div(a, b):\n    if b == 0:\n        raise ValueError('zero')\n    return a / b\n",
        "def div(a, b):\n    return a / b if b else None\n",
        "import pytest\n\ndef test_ok():\n    assert div(1, 2) == pytest.approx(0.5)\n\n"
        "def test_zero():\n    with pytest.raises(ValueError):\n        div(1, 0)\n",
        "test_zero",
    ),
    kod(
        "primes",
        "def prime(n):\n    return n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1))\n",
        "def prime(n):\n    return n % 2 == 1\n",
        "import pytest\n\n@pytest.mark.parametrize('n', [2, 3, 97])\ndef test_yes(n):\n    assert prime(n)\n\n"
        "@pytest.mark.parametrize('n,why', [(1, 'one'), (9, 'square')])\ndef test_no(n, why):\n    assert not prime(n), why\n",
        "test_yes[2]",
        "test_no[1-one]",
        "test_no[9-square]",
    ),
    kod(
        "flatten",
        "def flat(x):\n    return [b for a in x for b in (flat(a) if isinstance(a, list) else [a])]\n",
        "def flat(x):\n    return [b for a in x for b in (a if isinstance(a, list) else [a])]\n",
        "def test_shallow():\n    assert flat([1, [2]]) == [1, 2]\n\ndef test_deep():\n    assert flat([[[1]], 2]) == [1, 2]\n",
        "test_deep",
    ),
    kod(
        "count vowels",
        "def vowels(s):\n    return sum(c in 'aeiou' for c in s.lower())\n",
        "def vowels(s):\n    return sum(c in 'aeiou' for c in s)\n",
        "class TestVowels:\n    def test_lower(self):\n        assert vowels('banana') == 3\n\n"
        "    def test_upper(self):\n        assert vowels('AE') == 2\n",
        "TestVowels::test_upper",
    ),
    kod(
        "sorted copy",
        "def ordered(x):\n    return sorted(x)\n",
        "def ordered(x):\n    x.sort()\n    return x\n",
        "def test_sorts():\n    assert ordered([2, 1]) == [1, 2]\n\n"
        "def test_keeps():\n    given = [2, 1]\n    ordered(given)\n    assert given == [2, 1]\n",
        "test_keeps",
    ),
    kod(
        "stack",
        "class Stack:\n    def __init__(self):\n        self.x = []\n    def push(self, v):\n        self.x.append(v)\n"
        "    def pop(self):\n        return self.x.pop()\n",
        "class Stack:\n    def __init__(self):\n        self.x = []\n    def push(self, v):\n        self.x.append(v)\n"
        "    def pop(self):\n        return self.x.pop(0)\n",
        "import pytest\n\n@pytest.fixture\ndef stack():\n    s = Stack()\n    s.push(1)\n    s.push(2)\n    return s\n\n"
        "def test_pop(stack):\n    assert stack.pop() == 2\n\ndef test_both(stack):\n    assert {stack.pop(), stack.pop()} == {1, 2}\n\n"
        "def test_empty():\n    with pytest.raises(IndexError):\n        Stack().pop()\n",
        "test_pop",
    ),
    kod(
        "roman",
        "def roman(n):\n    out = ''\n    for v, s in ((10, 'X'), (9, 'IX'), (5, 'V'), (4, 'IV'), (1, 'I')):\n"
        "        while n >= v:\n            out, n = out + s, n - v\n    return out\n",
        "def roman(n):\n    return 'X' * (n // 10) + 'V' * (n % 10 // 5) + 'I' * (n % 5)\n",
        "def test_plain():\n    assert roman(8) == 'VIII'\n\ndef test_minus():\n    assert roman(4) == 'IV'\n    assert roman(9) == 'IX'\n",
        "test_minus",
    ),
    kod(
        "groups",
        "def groups(words):\n    out = {}\n    for w in words:\n        out.setdefault(len(w), []).append(w)\n    return out\n",
        "def groups(words):\n    return {len(w): [w] for w in words}\n",
        "def test_one():\n    assert groups(['a']) == {1: ['a']}\n\ndef test_two():\n    result = groups(['a', 'b', 'cc'])\n"
        "    assert result[1] == ['a', 'b']\n    assert len(result) == 2\n",
        "test_two",
    ),
    kod(
        "generator",
        "def evens(n):\n    for i in range(0, n, 2):\n        yield i\n",
        "def evens(n):\n    yield from range(n)\n",
        "def test_list():\n    assert list(evens(5)) == [0, 2, 4]\n\ndef test_none():\n    assert list(evens(0)) == []\n",
        "test_list",
    ),
    kod(
        "async",
        "async def later(x):\n    return x * 2\n",
        "async def later(x):\n    return x\n",
        "import asyncio\nimport pytest\n\ndef test_run():\n    assert asyncio.run(later(2)) == 4\n\n"
        "@pytest.mark.asyncio\nasync def test_await():\n    assert await later(3) == 6\n",
        "test_run",
        "test_await",
    ),
    kod(
        "text file",
        "def shout(text):\n    return text.upper() + '!'\n",
        "def shout(text):\n    return text.upper()\n",
        "def test_from_file(tmp_path):\n    (tmp_path / 'a.txt').write_text('hi')\n"
        "    assert shout((tmp_path / 'a.txt').read_text()) == 'HI!'\n\n"
        "def test_upper():\n    assert shout('a').startswith('A')\n",
        "test_from_file",
    ),
    kod(
        "merge",
        "def merge(a, b):\n    return {**a, **b}\n",
        "def merge(a, b):\n    a.update(b)\n    return b\n",
        "def test_merge():\n    assert merge({1: 1}, {2: 2}) == {1: 1, 2: 2}\n\ndef test_right_wins():\n    assert merge({1: 1}, {1: 2})[1] == 2\n",
        "test_merge",
    ),
    kod(
        "matrix",
        "def transpose(m):\n    return [list(r) for r in zip(*m)]\n",
        "def transpose(m):\n    return m[::-1]\n",
        "CASES = [([[1, 2], [3, 4]], [[1, 3], [2, 4]]), ([[1]], [[1]])]\n\ndef test_all():\n    for given, wanted in CASES:\n"
        "        assert transpose(given) == wanted\n\ndef test_single():\n    assert transpose([[7]]) == [[7]]\n",
        "test_all",
    ),
    kod(
        "callback",
        "def apply(f, n):\n    return [f(i) for i in range(n)]\n",
        "def apply(f, n):\n    return [f(0)] * n\n",
        "def test_square():\n    assert apply(lambda i: i * i, 3) == [0, 1, 4]\n\n"
        "def test_calls():\n    seen = []\n    apply(seen.append, 3)\n    assert seen == [0, 1, 2]\n",
        "test_square",
        "test_calls",
    ),
    kod(
        "bank",
        "class Account:\n    def __init__(self, balance=0):\n        self.balance = balance\n    def take(self, n):\n"
        "        if n > self.balance:\n            raise ValueError('too much')\n        self.balance -= n\n",
        "class Account:\n    def __init__(self, balance=0):\n        self.balance = balance\n    def take(self, n):\n        self.balance -= n\n",
        "import pytest\n\ndef test_take():\n    a = Account(5)\n    a.take(2)\n    assert a.balance == 3\n\n"
        "def test_too_much():\n    with pytest.raises(ValueError, match='too much'):\n        Account(1).take(2)\n",
        "test_too_much",
    ),
    kod(
        "fixture scopes",
        "def label(n):\n    return f'#{n}'\n",
        "def label(n):\n    return str(n)\n",
        "import pytest\n\n@pytest.fixture(scope='module')\ndef numbers():\n    yield [1, 2]\n\n"
        "@pytest.fixture(autouse=True)\ndef reset(request):\n    yield request.node.name\n\n"
        "def test_first(numbers):\n    assert label(numbers[0]) == '#1'\n\ndef test_length(numbers):\n    assert len(label(numbers[1])) >= 1\n",
        "test_first",
    ),
    kod(
        "none",
        "def first(x):\n    return x[0] if x else None\n",
        "def first(x):\n    return x[-1] if x else 0\n",
        "def test_empty():\n    assert first([]) is None\n\ndef test_one():\n    assert first([3]) == 3\n",
        "test_empty",
    ),
    kod(
        "messages",
        "def fizz(n):\n    return 'Fizz' if n % 3 == 0 else str(n)\n",
        "def fizz(n):\n    return 'Fizz'\n",
        "def helper(n, wanted):\n    assert fizz(n) == wanted, f'{n} should be {wanted}'\n\n"
        "def test_three():\n    helper(3, 'Fizz')\n\ndef test_four():\n    helper(4, '4')\n",
        "test_four",
    ),
]


def big(name: str, right: str, wrong: str, body: str, *failing: str, more: str = "") -> Example:
    """BigCodeBench: a TestCase that calls `task_func`, which the program before it defines."""
    tests = f"import unittest\n{more}class TestCases(unittest.TestCase):\n{body}"
    return Example(name, right, wrong, tests, tuple(f"TestCases.{one}" for one in failing))


BIGCODEBENCH = [
    big(
        "counter",
        "from collections import Counter\ndef task_func(s):\n    return Counter(s).most_common(1)[0][0]\n",
        "def task_func(s):\n    return s[0]\n",
        "    def test_case_1(self):\n        self.assertEqual(task_func('abb'), 'b')\n"
        "    def test_case_2(self):\n        self.assertEqual(task_func('a'), 'a')\n",
        "test_case_1",
    ),
    big(
        "json",
        "import json\ndef task_func(text):\n    return sorted(json.loads(text))\n",
        "import json\ndef task_func(text):\n    return list(json.loads(text))\n",
        "    def setUp(self):\n        self.text = json.dumps({'b': 1, 'a': 2})\n"
        "    def test_keys(self):\n        self.assertListEqual(task_func(self.text), ['a', 'b'])\n"
        "    def test_bad(self):\n        with self.assertRaises(ValueError):\n            task_func('{')\n",
        "test_keys",
        more="import json\n",
    ),
    big(
        "mean",
        "def task_func(x):\n    return sum(x) / len(x)\n",
        "def task_func(x):\n    return sum(x) // len(x)\n",
        "    def test_int(self):\n        self.assertEqual(task_func([2, 4]), 3)\n"
        "    def test_half(self):\n        self.assertAlmostEqual(task_func([1, 2]), 1.5)\n",
        "test_half",
    ),
    big(
        "words",
        "import re\ndef task_func(t):\n    return re.findall(r'[a-z]+', t.lower())\n",
        "def task_func(t):\n    return t.split()\n",
        "    def test_plain(self):\n        self.assertEqual(task_func('a b'), ['a', 'b'])\n"
        "    def test_commas(self):\n        self.assertEqual(task_func('A,b'), ['a', 'b'])\n",
        "test_commas",
    ),
    big(
        "dates",
        "from datetime import date\ndef task_func(y):\n    return date(y, 3, 1).toordinal() - date(y, 2, 28).toordinal() == 2\n",
        "def task_func(y):\n    return y % 4 == 0\n",
        "    def test_years(self):\n        for year, wanted in ((2000, True), (1900, False), (2024, True)):\n"
        "            with self.subTest(year=year):\n                self.assertIs(task_func(year), wanted)\n"
        "    def test_2023(self):\n        self.assertFalse(task_func(2023))\n",
        "test_years",
    ),
    big(
        "type error",
        "def task_func(x):\n    if not isinstance(x, int):\n        raise TypeError('int')\n    return x + 1\n",
        "def task_func(x):\n    return int(x) + 1\n",
        "    def test_value(self):\n        self.assertEqual(task_func(1), 2)\n"
        "    def test_type(self):\n        self.assertRaises(TypeError, task_func, '1')\n",
        "test_type",
    ),
    big(
        "tuple",
        "def task_func(x):\n    return min(x), max(x)\n",
        "def task_func(x):\n    return max(x), min(x)\n",
        "    def test_both(self):\n        low, high = task_func([3, 1])\n        self.assertEqual(low, 1)\n        self.assertEqual(high, 3)\n"
        "    def test_same(self):\n        self.assertTupleEqual(task_func([2]), (2, 2))\n",
        "test_both",
    ),
    big(
        "dict",
        "def task_func(x):\n    return {k: len(k) for k in x}\n",
        "def task_func(x):\n    return dict.fromkeys(x, 1)\n",
        "    def test_dict(self):\n        self.assertDictEqual(task_func(['ab']), {'ab': 2})\n"
        "    def test_in(self):\n        self.assertIn('a', task_func(['a']))\n",
        "test_dict",
    ),
    big(
        "set",
        "def task_func(a, b):\n    return set(a) & set(b)\n",
        "def task_func(a, b):\n    return set(a) | set(b)\n",
        "    def test_and(self):\n        self.assertSetEqual(task_func([1, 2], [2]), {2})\n"
        "    def test_none(self):\n        self.assertFalse(task_func([], []))\n",
        "test_and",
    ),
    big(
        "regex",
        "import re\ndef task_func(s):\n    return bool(re.fullmatch(r'\\d{3}', s))\n",
        "import re\ndef task_func(s):\n    return bool(re.match(r'\\d{3}', s))\n",
        "    def test_yes(self):\n        self.assertTrue(task_func('123'))\n"
        "    def test_no(self):\n        self.assertFalse(task_func('1234'))\n",
        "test_no",
    ),
    big(
        "class setup",
        "def task_func(x, n):\n    return x[:n]\n",
        "def task_func(x, n):\n    return x[-n:]\n",
        "    @classmethod\n    def setUpClass(cls):\n        cls.data = list(range(10))\n"
        "    def test_first(self):\n        self.assertEqual(task_func(self.data, 2), [0, 1])\n"
        "    def test_length(self):\n        self.assertEqual(len(task_func(self.data, 3)), 3)\n",
        "test_first",
    ),
    big(
        "skip",
        "def task_func(x):\n    return x.strip()\n",
        "def task_func(x):\n    return x.lstrip()\n",
        "    @unittest.skip('slow')\n    def test_slow(self):\n        self.assertEqual(task_func(1), 2)\n"
        "    def test_both(self):\n        self.assertEqual(task_func(' a '), 'a')\n"
        "    def test_left(self):\n        self.assertEqual(task_func(' a'), 'a')\n",
        "test_both",
    ),
    big(
        "clean up",
        "def task_func(x):\n    return sum(x)\n",
        "def task_func(x):\n    return len(x)\n",
        "    def setUp(self):\n        self.addCleanup(lambda: None)\n    def tearDown(self):\n        self.done = True\n"
        "    def test_sum(self):\n        self.assertEqual(task_func([2, 3]), 5)\n"
        "    def test_ones(self):\n        self.assertEqual(task_func([1]), 1)\n",
        "test_sum",
    ),
    big(
        "base64",
        "import base64\ndef task_func(s):\n    return base64.b64encode(s.encode()).decode()\n",
        "def task_func(s):\n    return s\n",
        "    def test_round(self):\n        self.assertEqual(base64.b64decode(task_func('hi')).decode(), 'hi')\n"
        "    def test_text(self):\n        self.assertIsInstance(task_func('a'), str)\n",
        "test_round",
        more="import base64\n",
    ),
    big(
        "counts",
        "from itertools import groupby\ndef task_func(s):\n    return [(k, len(list(g))) for k, g in groupby(s)]\n",
        "def task_func(s):\n    return [(k, s.count(k)) for k in sorted(set(s))]\n",
        "    def test_runs(self):\n        self.assertEqual(task_func('aab'), [('a', 2), ('b', 1)])\n"
        "    def test_again(self):\n        self.assertEqual(len(task_func('aba')), 3)\n",
        "test_again",
    ),
    big(
        "greater",
        "def task_func(n):\n    return n * n\n",
        "def task_func(n):\n    return n\n",
        "    def test_more(self):\n        self.assertGreater(task_func(3), 5)\n"
        "    def test_one(self):\n        self.assertLessEqual(task_func(1), 1)\n",
        "test_more",
    ),
    big(
        "raises text",
        "def task_func(d, k):\n    if k not in d:\n        raise KeyError('missing ' + k)\n    return d[k]\n",
        "def task_func(d, k):\n    return d[k]\n",
        "    def test_there(self):\n        self.assertEqual(task_func({'a': 1}, 'a'), 1)\n"
        "    def test_text(self):\n        with self.assertRaisesRegex(KeyError, 'missing'):\n            task_func({}, 'a')\n",
        "test_text",
    ),
    big(
        "async",
        "async def task_func(x):\n    return x + 1\n",
        "async def task_func(x):\n    return x - 1\n",
        "    def test_run(self):\n        self.assertEqual(asyncio.run(task_func(1)), 2)\n"
        "    def test_zero(self):\n        self.assertIsNotNone(asyncio.run(task_func(0)))\n",
        "test_run",
        more="import asyncio\n",
    ),
    big(
        "math",
        "import math\ndef task_func(r):\n    return math.pi * r ** 2\n",
        "def task_func(r):\n    return 3 * r ** 2\n",
        "    def test_pi(self):\n        self.assertAlmostEqual(task_func(1), math.pi, places=4)\n"
        "    def test_zero(self):\n        self.assertEqual(task_func(0), 0)\n",
        "test_pi",
        more="import math\n",
    ),
    big(
        "default",
        "def task_func(x, by=2):\n    return [i * by for i in x]\n",
        "def task_func(x, by=1):\n    return [i * by for i in x]\n",
        "    def test_default(self):\n        self.assertEqual(task_func([1]), [2])\n"
        "    def test_by(self):\n        self.assertEqual(task_func([1], by=3), [3])\n",
        "test_default",
    ),
]


def cls(name: str, right: str, change: tuple[str, str], tests: str, *failing: str) -> Example:
    """ClassEval: a class, and a TestCase for each of its methods; the wrong program is the right one, changed."""
    wrong = right.replace(*change)
    assert wrong != right, name
    return Example(name, right, wrong, f"import unittest\n\n{tests}", failing)


def case(title: str, *lines: str, setup: str = "") -> str:
    """A TestCase with numbered tests."""
    text = f"class {title}(unittest.TestCase):\n"
    text += f"    def setUp(self):\n        {setup}\n" if setup else ""
    return text + "".join(f"    def test_{at}(self):\n        {line}\n" for at, line in enumerate(lines, 1)) + "\n"


CLASSEVAL = [
    cls(
        "account",
        "class Account:\n    def __init__(self):\n        self.balance = 0\n    def put(self, n):\n        self.balance += n\n"
        "        return self.balance\n    def take(self, n):\n        self.balance -= n\n        return self.balance\n",
        ("-= n", "+= n"),
        case("TestPut", "self.assertEqual(Account().put(3), 3)")
        + case("TestTake", "self.assertEqual(Account().take(3), -3)"),
        "TestTake.test_1",
    ),
    cls(
        "cart",
        "class Cart:\n    def __init__(self):\n        self.items = {}\n    def add(self, name, price, n=1):\n"
        "        self.items[name] = (price, n)\n    def total(self):\n        return sum(p * n for p, n in self.items.values())\n",
        ("p * n for", "p for"),
        case("TestAdd", "self.c.add('a', 2); self.assertEqual(self.c.items, {'a': (2, 1)})", setup="self.c = Cart()")
        + case(
            "TestTotal",
            "self.assertEqual(self.c.total(), 0)",
            "self.c.add('a', 2, 3); self.assertEqual(self.c.total(), 6)",
            setup="self.c = Cart()",
        ),
        "TestTotal.test_2",
    ),
    cls(
        "queue",
        "class Queue:\n    def __init__(self):\n        self.x = []\n    def push(self, v):\n        self.x.append(v)\n"
        "    def pop(self):\n        return self.x.pop(0)\n    def size(self):\n        return len(self.x)\n",
        ("pop(0)", "pop()"),
        case("TestPop", "self.q.push(1); self.q.push(2); self.assertEqual(self.q.pop(), 1)", setup="self.q = Queue()")
        + case("TestSize", "self.assertEqual(Queue().size(), 0)"),
        "TestPop.test_1",
    ),
    cls(
        "temperature",
        "class Temperature:\n    def __init__(self, c):\n        self.c = c\n    @property\n    def f(self):\n"
        "        return self.c * 9 / 5 + 32\n",
        ("+ 32", "+ 30"),
        case("TestF", "self.assertEqual(Temperature(0).f, 32)", "self.assertEqual(Temperature(100).c, 100)"),
        "TestF.test_1",
    ),
    cls(
        "vector",
        "class Vector:\n    def __init__(self, x, y):\n        self.x, self.y = x, y\n    def dot(self, o):\n"
        "        return self.x * o.x + self.y * o.y\n    def scaled(self, k):\n        return Vector(self.x * k, self.y * k)\n",
        ("+ self.y * o.y", ""),
        case("TestDot", "self.assertEqual(Vector(1, 2).dot(Vector(3, 4)), 11)")
        + case("TestScaled", "v = Vector(1, 2).scaled(2); self.assertEqual((v.x, v.y), (2, 4))"),
        "TestDot.test_1",
    ),
    cls(
        "library",
        "class Library:\n    def __init__(self):\n        self.books = []\n    def add(self, b):\n        if b in self.books:\n"
        "            raise ValueError('twice')\n        self.books.append(b)\n    def has(self, b):\n        return b in self.books\n",
        ("raise ValueError('twice')", "return"),
        case("TestAdd", "lib = Library(); lib.add('a'); self.assertRaises(ValueError, lib.add, 'a')")
        + case(
            "TestHas", "lib = Library(); lib.add('a'); self.assertTrue(lib.has('a')); self.assertFalse(lib.has('b'))"
        ),
        "TestAdd.test_1",
    ),
    cls(
        "text",
        "class Text:\n    def __init__(self, t):\n        self.t = t\n    def words(self):\n        return self.t.split()\n"
        "    def title(self):\n        return self.t.title()\n",
        ("t.title()", "t.upper()"),
        case("TestWords", "self.assertEqual(Text('a b').words(), ['a', 'b'])")
        + case("TestTitle", "self.assertEqual(Text('ab').title(), 'Ab')"),
        "TestTitle.test_1",
    ),
    cls(
        "matrix",
        "class Matrix:\n    def __init__(self, rows):\n        self.rows = rows\n    def trace(self):\n"
        "        return sum(self.rows[i][i] for i in range(len(self.rows)))\n    def shape(self):\n"
        "        return len(self.rows), len(self.rows[0])\n",
        ("[i][i]", "[i][0]"),
        case("TestTrace", "self.assertEqual(Matrix([[1, 2], [3, 4]]).trace(), 5)")
        + case("TestShape", "self.assertEqual(Matrix([[1, 2]]).shape(), (1, 2))"),
        "TestTrace.test_1",
    ),
    cls(
        "counter",
        "class Clicks:\n    total = 0\n    def __init__(self):\n        self.n = 0\n    def click(self):\n        self.n += 1\n"
        "        Clicks.total += 1\n        return self.n\n",
        ("Clicks.total += 1", "pass"),
        case("TestClick", "c = Clicks(); c.click(); self.assertEqual(c.click(), 2)")
        + case("TestTotal", "before = Clicks.total; Clicks().click(); self.assertEqual(Clicks.total, before + 1)"),
        "TestTotal.test_1",
    ),
    cls(
        "static",
        "class Geometry:\n    @staticmethod\n    def area(w, h):\n        return w * h\n    @classmethod\n    def square(cls, a):\n"
        "        return cls.area(a, a)\n",
        ("w * h", "w + h"),
        case("TestArea", "self.assertEqual(Geometry.area(2, 3), 6)", "self.assertEqual(Geometry.area(2, 2), 4)")
        + case("TestSquare", "self.assertEqual(Geometry.square(2), 4)"),
        "TestArea.test_1",
    ),
    cls(
        "parser",
        "class Parser:\n    def parse(self, t):\n        out = {}\n        for part in t.split(';'):\n            k, _, v = part.partition('=')\n"
        "            out[k.strip()] = v.strip()\n        return out\n",
        ("v.strip()", "v"),
        case(
            "TestParse",
            "self.assertEqual(Parser().parse('a=1;b=2'), {'a': '1', 'b': '2'})",
            "self.assertEqual(Parser().parse('a = 1'), {'a': '1'})",
        ),
        "TestParse.test_2",
    ),
    cls(
        "history",
        "class History:\n    def __init__(self):\n        self.done, self.undone = [], []\n    def do(self, x):\n"
        "        self.done.append(x)\n        self.undone.clear()\n    def undo(self):\n        self.undone.append(self.done.pop())\n"
        "    def redo(self):\n        self.done.append(self.undone.pop())\n",
        ("self.undone.clear()", "pass"),
        case("TestUndo", "self.h.do(1); self.h.undo(); self.assertEqual(self.h.done, [])", setup="self.h = History()")
        + case(
            "TestRedo",
            "self.h.do(1); self.h.undo(); self.h.do(2); self.assertRaises(IndexError, self.h.redo)",
            setup="self.h = History()",
        ),
        "TestRedo.test_1",
    ),
    cls(
        "shapes",
        "class Shape:\n    def area(self):\n        raise NotImplementedError\nclass Square(Shape):\n    def __init__(self, a):\n"
        "        self.a = a\n    def area(self):\n        return self.a ** 2\n",
        ("** 2", "* 2"),
        case("TestShape", "self.assertRaises(NotImplementedError, Shape().area)")
        + case("TestSquare", "self.assertEqual(Square(3).area(), 9)"),
        "TestSquare.test_1",
    ),
    cls(
        "tokens",
        "class Tokens:\n    def __init__(self, t):\n        self.t = t.split()\n    def __iter__(self):\n        return iter(self.t)\n"
        "    def __len__(self):\n        return len(self.t)\n",
        ("len(self.t)", "len(self.t) - 1"),
        case("TestIter", "self.assertEqual(list(Tokens('a b')), ['a', 'b'])")
        + case("TestLen", "self.assertEqual(len(Tokens('a b')), 2)"),
        "TestLen.test_1",
    ),
    cls(
        "average",
        "class Average:\n    def __init__(self):\n        self.n, self.s = 0, 0.0\n    def add(self, x):\n        self.n += 1\n"
        "        self.s += x\n        return self\n    def value(self):\n        return self.s / self.n if self.n else 0.0\n",
        ("else 0.0", "else -1.0"),
        case(
            "TestValue",
            "self.assertEqual(Average().value(), 0.0)",
            "self.assertAlmostEqual(Average().add(1).add(2).value(), 1.5)",
        ),
        "TestValue.test_1",
    ),
    cls(
        "roster",
        "class Roster:\n    def __init__(self):\n        self.by = {}\n    def add(self, name, grade):\n"
        "        self.by.setdefault(grade, []).append(name)\n    def grade(self, g):\n        return sorted(self.by.get(g, []))\n",
        ("sorted(", "list("),
        case(
            "TestGrade",
            "self.r.add('b', 1); self.r.add('a', 1); self.assertEqual(self.r.grade(1), ['a', 'b'])",
            "self.assertEqual(self.r.grade(9), [])",
            setup="self.r = Roster()",
        ),
        "TestGrade.test_1",
    ),
    cls(
        "limit",
        "class Limiter:\n    def __init__(self, n):\n        self.left = n\n    def ask(self):\n        if not self.left:\n"
        "            return False\n        self.left -= 1\n        return True\n",
        ("self.left -= 1", "pass"),
        case(
            "TestAsk", "self.assertTrue(Limiter(1).ask())", "one = Limiter(1); one.ask(); self.assertFalse(one.ask())"
        ),
        "TestAsk.test_2",
    ),
    cls(
        "cipher",
        "class Cipher:\n    def __init__(self, k):\n        self.k = k\n    def enc(self, t):\n"
        "        return ''.join(chr((ord(c) - 97 + self.k) % 26 + 97) for c in t)\n    def dec(self, t):\n        return Cipher(-self.k).enc(t)\n",
        ("% 26 + 97", "+ 97"),
        case("TestEnc", "self.assertEqual(Cipher(1).enc('ab'), 'bc')", "self.assertEqual(Cipher(1).enc('z'), 'a')")
        + case("TestDec", "self.assertEqual(Cipher(3).dec('d'), 'a')"),
        "TestEnc.test_2",
    ),
    cls(
        "cache",
        "class Cache:\n    def __init__(self, size):\n        self.size, self.d = size, {}\n    def put(self, k, v):\n        self.d.pop(k, None)\n"
        "        self.d[k] = v\n        if len(self.d) > self.size:\n            del self.d[next(iter(self.d))]\n    def get(self, k):\n"
        "        return self.d.get(k)\n",
        ("> self.size", "> self.size + 1"),
        case(
            "TestGet",
            "self.assertIsNone(Cache(1).get('a'))",
            "c = Cache(1); c.put('a', 1); c.put('b', 2); self.assertEqual((c.get('a'), c.get('b')), (None, 2))",
        ),
        "TestGet.test_2",
    ),
    cls(
        "main",
        "class Tree:\n    def __init__(self):\n        self.kids = {}\n    def add(self, path):\n        node = self\n        for part in path.split('/'):\n"
        "            node = node.kids.setdefault(part, Tree())\n    def depth(self):\n        return 1 + max((k.depth() for k in self.kids.values()), default=-1)\n",
        ("default=-1", "default=0"),
        case(
            "TestDepth",
            "self.assertEqual(Tree().depth(), 0)",
            "t = Tree(); t.add('a/b'); self.assertEqual(t.depth(), 2)",
        ),
        "TestDepth.test_1",
        "TestDepth.test_2",
    ),
]

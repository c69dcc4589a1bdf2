"""Problems with more than one right output, each with a checker, right programs and wrong ones. All of our own making.

The checkers in C++ are the stock ones of contest systems, written anew against the interface of `testlib.h`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckerProblem:
    name: str
    language: str  # of the checker
    checker: str
    cases: tuple[tuple[str, str], ...]  # input, answer
    right: tuple[str, ...]  # Python programs
    wrong: tuple[str, ...]
    partial: tuple[tuple[str, float], ...] = ()  # programs with the score of their first case


HEAD = """\
import sys
from pathlib import Path
given, output, answer = (Path(name).read_text(errors="replace") for name in sys.argv[1:4])
def refuse(why):
    print(why, file=sys.stderr)
    sys.exit(1)
def numbers(text, size=None):
    try:
        found = [int(word) for word in text.split()]
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if size is not None and len(found) != size:
        refuse(f"{len(found)} numbers instead of {size}")
    return found
"""


def python(
    name: str,
    body: str,
    cases: tuple[tuple[str, str], ...],
    right: tuple[str, ...],
    wrong: tuple[str, ...],
    partial: tuple[tuple[str, float], ...] = (),
) -> CheckerProblem:
    return CheckerProblem(name, "python", HEAD + body, cases, right, wrong, partial)


PYTHON = (
    python(
        "any permutation without fixed points",
        "n = int(given)\np = numbers(output, n)\n"
        "if sorted(p) != list(range(1, n + 1)): refuse('no permutation')\n"
        "if any(v == i for i, v in enumerate(p, 1)): refuse('a fixed point')\n",
        (("3\n", "2 3 1\n"), ("5\n", "2 3 4 5 1\n")),
        ("n = int(input())\nprint(*range(2, n + 1), 1)", "n = int(input())\nprint(n, *range(1, n), sep='\\n')"),
        ("n = int(input())\nprint(*range(1, n + 1))", "print(2, 3, 1)", "print('2 3 x')", "print()"),
    ),
    python(
        "two numbers with a sum",
        "s = int(given)\na, b = numbers(output, 2)\nif a + b != s or a < 1 or b < 1: refuse('not that sum')\n",
        (("7\n", "3 4\n"), ("2\n", "1 1\n")),
        ("s = int(input())\nprint(1, s - 1)", "s = int(input())\nprint(s // 2, s - s // 2)"),
        ("s = int(input())\nprint(0, s)", "print(3, 4)", "print(3)"),
    ),
    python(
        "a float within a tolerance",
        "try:\n    got = float(output)\nexcept ValueError:\n    sys.exit(2)\n"
        "want = float(answer)\nif not abs(got - want) <= 1e-6 * max(1, abs(want)): refuse(f'{got} for {want}')\n",
        (("2\n", "1.41421356237\n"), ("10000\n", "100\n")),
        ("print(float(input()) ** 0.5)", "print(f'{float(input()) ** 0.5:.8f}')"),
        ("print(1.414)", "print('nan')", "print(float(input()) / 2)"),
    ),
    python(
        "any shortest path",
        "first, *rest = given.strip().split('\\n')\nn, m = map(int, first.split())\n"
        "edges = {frozenset(map(int, line.split())) for line in rest}\np = numbers(output)\n"
        "if not p or p[0] != 1 or p[-1] != n: refuse('wrong ends')\n"
        "if any(frozenset(e) not in edges for e in zip(p, p[1:])): refuse('no such edge')\n"
        "if len(p) != len(answer.split()): refuse('not the shortest')\n",
        (("4 4\n1 2\n2 4\n1 3\n3 4\n", "1 2 4\n"), ("2 1\n1 2\n", "1 2\n")),
        (
            "n, m = map(int, input().split())\ng = {}\n"
            "for _ in range(m):\n    a, b = map(int, input().split())\n    g.setdefault(a, []).append(b)\n"
            "    g.setdefault(b, []).append(a)\n"
            "q, up = [1], {1: 0}\n"
            "for v in q:\n    for w in reversed(g[v]):\n        if w not in up: up[w] = v; q.append(w)\n"
            "path = [n]\nwhile path[-1] != 1: path.append(up[path[-1]])\nprint(*reversed(path))",
        ),
        ("print(1, 4)", "n = int(input().split()[0])\nprint(1, n)", "print(4, 2, 1)", "print('1 2 4 2 4')"),
    ),
    python(
        "any spanning tree",
        "first, *rest = given.strip().split('\\n')\nn = int(first.split()[0])\n"
        "edges = {frozenset(map(int, line.split())) for line in rest}\nw = numbers(output, 2 * (n - 1))\n"
        "root = list(range(n + 1))\n"
        "def find(v):\n    while root[v] != v: v = root[v]\n    return v\n"
        "for a, b in zip(w[::2], w[1::2]):\n"
        "    if frozenset((a, b)) not in edges: refuse('no such edge')\n"
        "    if find(a) == find(b): refuse('a cycle')\n    root[find(a)] = find(b)\n",
        (("3 3\n1 2\n2 3\n1 3\n", "1 2\n2 3\n"),),
        ("print(1, 3)\nprint(3, 2)", "print(2, 1, 2, 3)"),
        ("print(1, 2)\nprint(1, 2)", "print(1, 2)", "print(1, 4)\nprint(2, 3)"),
    ),
    python(
        "any topological order",
        "first, *rest = given.strip().split('\\n')\nn = int(first.split()[0])\np = numbers(output, n)\n"
        "if sorted(p) != list(range(1, n + 1)): refuse('no order of all')\nat = {v: i for i, v in enumerate(p)}\n"
        "for line in rest:\n    a, b = map(int, line.split())\n    if at[a] > at[b]: refuse(f'{a} after {b}')\n",
        (("4 2\n1 2\n3 4\n", "1 2 3 4\n"), ("2 1\n2 1\n", "2 1\n")),
        (
            "n, m = map(int, input().split())\nleft = {v: set() for v in range(1, n + 1)}\n"
            "for _ in range(m):\n    a, b = map(int, input().split())\n    left[b].add(a)\n"
            "out = []\nwhile left:\n    v = max(v for v in left if not left[v])\n    out.append(v)\n    del left[v]\n"
            "    for s in left.values(): s.discard(v)\nprint(*out)",
        ),
        ("print(1, 2, 3, 4)", "n = int(input().split()[0])\nprint(*range(n, 0, -1))", "print(1)"),
    ),
    python(
        "queens that do not attack each other",
        "n = int(given)\nq = numbers(output, n)\n"
        "if sorted(q) != list(range(1, n + 1)): refuse('a row twice')\n"
        "if len({c + i for i, c in enumerate(q)}) < n or len({c - i for i, "
        "c in enumerate(q)}) < n: refuse('diagonal')\n",
        (("4\n", "2 4 1 3\n"), ("6\n", "2 4 6 1 3 5\n")),
        (
            "from itertools import permutations\nn = int(input())\n"
            "print(*next(p for p in permutations(range(n, 0, -1)) if len({c + i for i, c in enumerate(p)}) == n"
            " == len({c - i for i, c in enumerate(p)})))",
        ),
        ("n = int(input())\nprint(*range(1, n + 1))", "print(2, 4, 1, 3)"),
    ),
    python(
        "construct an array by its sum and length",
        "n, s = map(int, given.split())\na = numbers(output, n)\n"
        "if sum(a) != s or min(a) < 0 or len(set(a)) != n: refuse('not as asked for')\n",
        (("3 6\n", "1 2 3\n"), ("1 0\n", "0\n")),
        ("n, s = map(int, input().split())\na = list(range(n))\na[-1] = s - sum(a[:-1])\nprint(*a)",),
        ("n, s = map(int, input().split())\nprint(*[s // n] * n)", "print(1, 2, 3)", "print(-1)"),
    ),
    python(
        "yes or no in any case",
        "word = output.split()\nif len(word) != 1 or word[0].lower() != answer.strip().lower(): refuse('no')\n",
        (("4\n", "YES\n"), ("5\n", "NO\n")),
        ("print('yEs' if int(input()) % 2 == 0 else 'nO')", "print(['YES', 'NO'][int(input()) % 2])"),
        ("print('YES')", "print('maybe')", "print('YES NO')", "pass"),
    ),
    python(
        "any colouring with two colours",
        "first, *rest = given.strip().split('\\n')\nn = int(first.split()[0])\nc = numbers(output, n)\n"
        "if set(c) - {1, 2}: refuse('another colour')\n"
        "for line in rest:\n    a, b = map(int, line.split())\n    if c[a - 1] == c[b - 1]: refuse('the same')\n",
        (("3 2\n1 2\n2 3\n", "1 2 1\n"), ("2 1\n1 2\n", "1 2\n")),
        ("n = int(input().split()[0])\nprint(*[2 - i % 2 for i in range(n)])",),
        (
            "n = int(input().split()[0])\nprint(*[1] * n)",
            "print(1, 2, 1)",
            "n = int(input().split()[0])\nprint(*range(n))",
        ),
    ),
    python(
        "any of the longest palindromes",
        "got, want = output.strip(), answer.strip()\n"
        "if got not in given.strip() or got != got[::-1] or len(got) != len(want): refuse(f'{got!r}')\n",
        (("babad\n", "bab\n"), ("xyz\n", "x\n")),
        (
            "s = input()\nn = len(s)\nprint(max((s[i:j] for i in range(n, -1, -1) for j in range(i + 1, n + 1)"
            " if s[i:j] == s[i:j][::-1]), key=len))",
        ),
        ("print(input())", "print('bab')", "print('ccc')", "print('')"),
    ),
    python(
        "as many as there are, with a score",
        "want = set(answer.split())\ngot = output.split()\n"
        "if set(got) - want or len(got) != len(set(got)): refuse('extra')\n"
        "print(len(got) / len(want))\n",
        (("12\n", "1 2 3 4 6 12\n"), ("7\n", "1 7\n")),
        ("n = int(input())\nprint(*[d for d in range(n, 0, -1) if n % d == 0])",),
        ("print(1)", "print(5)", "n = int(input())\nprint(1, 1, n)"),
        (("print(1, 2, 3)", 0.5), ("print(1, 5)", 0.0), ("", 0.0)),
    ),
    python(
        "one or zero on stdout, as open-r1's checkers print",
        "print(int(sorted(output.split()) == sorted(answer.split())))\n",
        (("b a\n", "a b\n"), ("z\n", "z\n")),
        ("print(*sorted(input().split()))", "print(*reversed(input().split()))"),
        ("print('a b')", "print(input().upper())", "print(1)"),
        (("print('a')", 0.0),),
    ),
    python(
        "a refusal by assertion",
        "assert sorted(output.split()) == sorted(answer.split()), 'other words'\n",
        (("b a\n", "a b\n"),),
        ("print('b a')", "print('a\\nb')"),
        ("print('a')", "print('a b b')"),
    ),
    python(
        "a score by exit code",
        "hits = sum(a == b for a, b in zip(output.split(), answer.split()))\n"
        "print('points', hits / len(answer.split()), 'so many right', file=sys.stderr)\nsys.exit(7)\n",
        (("4\n", "1 2 3 4\n"),),
        ("print(1, 2, 3, 4)",),
        ("print(4, 3, 2, 1)", "print()"),
        (("print(1, 2, 4, 3)", 0.5), ("print(1)", 0.25), ("", 0.0)),
    ),
)


def cpp(
    name: str,
    body: str,
    cases: tuple[tuple[str, str], ...],
    right: tuple[str, ...],
    wrong: tuple[str, ...],
    partial: tuple[tuple[str, float], ...] = (),
) -> CheckerProblem:
    source = f'#include "testlib.h"\nusing namespace std;\nint main(int argc, char* argv[]) {{\n{body}\n}}\n'
    return CheckerProblem(name, "cpp", source, cases, right, wrong, partial)


START = "    registerTestlibCmd(argc, argv);\n"
CPP = (
    cpp(
        "lcmp: lines, blanks aside",
        '    setName("compare files as sequences of lines");\n'
        + START
        + "    int n = 0;\n    while (!ans.eof()) {\n        string want = ans.readString();\n"
        "        if (want.empty() && ans.eof()) break;\n        n++;\n        string got = ouf.readString();\n"
        "        if (tokenize(got, ' ') != tokenize(want, ' '))\n"
        "            quitf(_wa, \"%d%s lines differ - expected: '%s', found: '%s'\", n, englishEnding(n).c_str(),"
        " compress(want).c_str(), compress(got).c_str());\n    }\n"
        '    quitf(_ok, "%d lines", n);',
        (("", "a b\nc\n"),),
        ("print('a  b')\nprint(' c ')", "print('a b\\nc', end='')"),
        ("print('a b c')", "print('a b')\nprint('d')", "print('ab')\nprint('c')", "print('a b\\nc\\nd')"),
    ),
    cpp(
        "wcmp: words",
        '    setName("compare sequences of tokens");\n' + START + "    int n = 0;\n    string j, p;\n"
        "    while (!ans.seekEof() && !ouf.seekEof()) {\n        n++;\n        ans.readWordTo(j);\n"
        "        ouf.readWordTo(p);\n"
        '        if (j != p) quitf(_wa, "%d%s words differ", n, englishEnding(n).c_str());\n    }\n'
        '    if (ans.seekEof() && ouf.seekEof()) quitf(_ok, "%d tokens", n);\n'
        '    if (ans.seekEof()) quitf(_wa, "extra tokens");\n    quitf(_wa, "unexpected EOF");',
        (("", "a b c\n"),),
        ("print('a b\\n\\nc')", "print('  a b c', end='')"),
        ("print('a b')", "print('a b c d')", "print('A b c')"),
    ),
    cpp(
        "ncmp: whole numbers",
        '    setName("compare ordered sequences of signed int numbers");\n'
        + START
        + "    int n = 0;\n    while (!ans.seekEof() && !ouf.seekEof()) {\n        n++;\n"
        "        long long j = ans.readLong(), p = ouf.readLong();\n"
        "        if (j != p) quitf(_wa, \"%d%s numbers differ - expected: '%s', found: '%s'\", n, "
        "englishEnding(n).c_str(),"
        " vtos(j).c_str(), vtos(p).c_str());\n    }\n"
        "    int more = 0;\n    while (!ans.seekEof()) { ans.readLong(); more++; }\n"
        '    quitif(more > 0, _wa, "Answer contains longer sequence");\n'
        "    while (!ouf.seekEof()) { ouf.readLong(); more++; }\n"
        '    quitif(more > 0, _wa, "Output contains longer sequence");\n'
        '    quitf(_ok, "%d numbers", n);',
        (("", "1 -2 9223372036854775807\n"),),
        ("print(1, -2, 2**63 - 1)", "print('1\\n-2\\n9223372036854775807')"),
        (
            "print(1, -2)",
            "print('01', -2, 2**63 - 1)",
            "print(1, -2, 2**63)",
            "print('+1', -2, 2**63 - 1)",
            "print(1, -2, 2**63 - 1, 4)",
            "print('one')",
        ),
    ),
    cpp(
        "fcmp: lines exactly",
        START + "    string x;\n    for (int n = 1; !ans.eof(); n++) {\n        x = ans.readLine();\n"
        "        if (x.empty() && ans.eof()) break;\n"
        '        if (ouf.eof() || ouf.readLine() != x) quitf(_wa, "%d%s lines differ", n, '
        "englishEnding(n).c_str());\n    }\n"
        '    quitf(_ok, "files are equal");',
        (("", "a  b\n c\n"),),
        ("print('a  b')\nprint(' c')",),
        ("print('a b')\nprint(' c')", "print('a  b')", "print('a  b')\nprint('c')"),
    ),
    cpp(
        "rcmp6: floats within 1e-6",
        '    setName("compare two sequences of doubles, max absolute or relative error = %.7f", 1e-6);\n'
        + START
        + "    int n = 0;\n    while (!ans.seekEof()) {\n        n++;\n"
        "        double j = ans.readDouble(), p = ouf.readDouble();\n"
        "        if (!doubleCompare(j, p, 1e-6))\n"
        "            quitf(_wa, \"%d%s numbers differ - error = '%.7f'\", n, englishEnding(n).c_str(), "
        "doubleDelta(j, p));\n"
        '    }\n    quitf(_ok, "%d numbers", n);',
        (("", "0.333333333 1e6 -2\n"),),
        ("print(1 / 3, 1000000.5, -2.0)", "print('0.3333335 1.0e+6 -2.0000001')"),
        (
            "print(0.33, 1e6, -2)",
            "print(1 / 3, 1000002, -2)",
            "print('nan 1e6 -2')",
            "print(1 / 3, 1e6)",
            "print('0x1p-2 1e6 -2')",
            "print(1 / 3, 1e6, -2, 5)",
            "print('inf inf inf')",
        ),
    ),
    cpp(
        "yesno: one word in any case",
        START + "    string j = upperCase(ans.readWord()), p = upperCase(ouf.readWord());\n"
        '    if (j != "YES" && j != "NO") quitf(_fail, "YES or NO expected in answer, but %s found", '
        "compress(j).c_str());\n"
        '    if (p != "YES" && p != "NO") quitf(_pe, "YES or NO expected, but %s found", compress(p).c_str());\n'
        '    if (j != p) quitf(_wa, "expected %s, found %s", compress(j).c_str(), compress(p).c_str());\n'
        '    quitf(_ok, "answer is %s", p.c_str());',
        (("1\n", "YES\n"), ("2\n", "no\n")),
        ("print('yes' if input() == '1' else 'No')",),
        ("print('yes')", "print('y')", "print('yes yes')", "pass"),
    ),
    cpp(
        "nyesno: many of them",
        START + "    int n = 0;\n    while (!ans.seekEof()) {\n        n++;\n"
        "        string j = lowerCase(ans.readToken()), "
        'p = lowerCase(ouf.readToken("[yY][eE][sS]|[nN][oO]", "word"));\n'
        '        if (j != p) quitf(_wa, "expected %s, found %s [%d%s token]", j.c_str(), p.c_str(), n, '
        "englishEnding(n).c_str());\n"
        '    }\n    quitf(_ok, "%d tokens", n);',
        (("", "YES NO YES\n"),),
        ("print('yes', 'no', 'Yes')", "print('YES\\nNO\\nYES')"),
        ("print('yes no no')", "print('yes no')", "print('yes no yess')", "print('yes no yes no')"),
    ),
    cpp(
        "caseicmp: Case i:",
        START + "    for (int i = 1; !ans.seekEof(); i++) {\n"
        '        string prefix = "Case " + vtos(i) + ":";\n        string j = ans.readLine(), p = ouf.readLine();\n'
        '        if (j.substr(0, prefix.size()) != prefix) quitf(_fail, "no %s in the answer", prefix.c_str());\n'
        "        setTestCase(i);\n"
        '        if (p.substr(0, prefix.size()) != prefix) ouf.quitf(_pe, "expected %s", prefix.c_str());\n'
        "        long long a = stringToLongLong(ans, trim(j.substr(prefix.size())));\n"
        "        long long b = stringToLongLong(ouf, trim(p.substr(prefix.size())));\n"
        '        if (a != b) quitf(_wa, "expected %lld, found %lld", a, b);\n    }\n    unsetTestCase();\n'
        '    quit(_ok, "all cases");',
        (("", "Case 1: 5\nCase 2: -6\n"),),
        ("print('Case 1: 5')\nprint('Case 2:   -6')",),
        ("print('Case 1: 5')\nprint('Case 2: 6')", "print('Case 1: 5')\nprint('Case 3: -6')", "print('5\\n-6')"),
    ),
    cpp(
        "a sum, with an ending of its own",
        START + '    long long sum = 0;\n    for (int v : inf.readIntegers(3, -100, 100, "a")) sum += v;\n'
        "    long long found = ouf.readLongLong();\n"
        '    if (ans.readLong() != sum) ans.quitf(_wa, "not even the jury\'s");\n'
        '    if (found > sum) expectedButFound(_wa, sum, found, "too much by %d", int(found - sum));\n'
        "    if (found < sum) expectedButFound(_wa, sum, found);\n    disableFinalizeGuard();\n    return 0;",
        (("1 2 3\n", "6\n"), ("-1 0 1\n", "0\n")),
        ("print(sum(map(int, input().split())))",),
        ("print(5)", "print(7)", "print(6)", "print('6.0')", "pass"),
    ),
    cpp(
        "hcmp: a number of any length",
        START + '    string j = ans.readWord("0|-?[1-9][0-9]*", "answer"), p = ouf.readWord();\n'
        '    if (!pattern("0|-?[1-9][0-9]{0,}").matches(p)) quitf(_pe, "%s is not a number", compress(p).c_str());\n'
        '    if (j != p) quitf(_wa, "expected %s, found %s", compress(j).c_str(), compress(p).c_str());\n'
        '    quitf(_ok, "%s", compress(p).c_str());',
        (("100\n", str(3**100) + "\n"),),
        ("print(3 ** int(input()))",),
        ("print(3 ** 99)", "print('0' + str(3 ** 100))", "print(3.0 ** 100)", "print('-0')"),
    ),
    cpp(
        "uncmp: numbers in any order",
        START + "    vector<int> j, p;\n    while (!ans.seekEof()) j.push_back(ans.readInt());\n"
        "    while (!ouf.seekEof()) p.push_back(ouf.readInt());\n"
        '    quitif(j.size() != p.size(), _wa, "expected %d numbers, found %d", int(j.size()), int(p.size()));\n'
        "    sort(j.begin(), j.end());\n    sort(p.begin(), p.end());\n"
        '    if (j != p) quitf(_wa, "other numbers: %s", compress(join(p)).c_str());\n'
        '    quitf(_ok, "%d numbers", int(j.size()));',
        (("", "3 1 2 2\n"),),
        ("print(2, 3, 2, 1)", "print(1, 2, 2, 3, sep='\\n')"),
        ("print(1, 2, 3)", "print(1, 1, 2, 3)", "print(3, 1, 2, 2, 2)"),
    ),
    cpp(
        "points: how many of the words",
        START
        + "    int n = 0, hits = 0;\n    while (!ans.seekEof()) {\n        n++;\n        string j = ans.readToken();\n"
        "        if (!ouf.seekEof() && ouf.readToken() == j) hits++;\n    }\n"
        '    if (hits == n) quitf(_ok, "all %d", n);\n    if (hits == 1) quitf(_pc(10), "only one");\n'
        '    if (hits == 0) quitf(_wa, "none");\n    quitp(double(hits) / n, "%d of %d", hits, n);',
        (("", "a b c d\n"),),
        ("print('a b c d')",),
        ("print('x')", "print('a b c d e')"),
        (("print('a b c')", 0.75), ("print('a x')", 0.1), ("print('a b x y')", 0.5), ("", 0.0)),
    ),
    cpp(
        "jury and participant read alike: the longest increasing subsequence",
        "    registerTestlibCmd(argc, argv);\n    int n = inf.readInt();\n    vector<int> a = inf.readInts(n);\n"
        '    auto read = [&](InStream& in) {\n        int k = in.readInt(0, n, "k");\n'
        '        vector<int> at = in.readInts(k, 1, n, "index");\n'
        "        for (int i = 1; i < k; i++)\n            if (at[i] <= at[i - 1] || a[at[i] - 1] <= a[at[i - 1] - 1])\n"
        '                in.quitf(_wa, "not increasing at %d", i + 1);\n        return k;\n    };\n'
        "    int j = read(ans), p = read(ouf);\n"
        '    if (j > p) quitf(_wa, "%d, and %d is possible", p, j);\n'
        '    if (j < p) quitf(_fail, "%d is better than the jury\'s %d", p, j);\n    quitf(_ok, "length %d", p);',
        (("5\n3 1 2 5 4\n", "3\n2 3 4\n"),),
        ("print(3)\nprint(2, 3, 5)", "print(3, 2, 3, 4)"),
        ("print(2)\nprint(2, 3)", "print(3)\nprint(1, 2, 3)", "print(9)", "print(3)\nprint(2, 3)", "print(3, 2, 3, 6)"),
    ),
)

CHECKER_PROBLEMS = (*PYTHON, *CPP)

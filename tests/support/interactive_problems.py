"""Interactive problems with their interactors, right programs and wrong ones. All of our own making."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InteractiveProblem:
    name: str
    language: str  # of the interactor
    interactor: str
    inputs: tuple[str, ...]
    right: tuple[tuple[str, str], ...]  # language, program
    wrong: tuple[str, ...]  # Python programs that answer wrongly or break the protocol
    score: tuple[str, float] | None = None


BISECT = (
    "lo, hi = 1, 1000\nwhile True:\n    m = (lo + hi) // 2\n    print(m, flush=True)\n    r = input()\n"
    "    if r == '=': break\n    if r == '<': hi = m - 1\n    else: lo = m + 1\n"
)
BISECT_CPP = """\
#include <iostream>
#include <string>
int main() {
    int lo = 1, hi = 1000;
    for (;;) {
        int m = (lo + hi) / 2;
        std::cout << m << std::endl;
        std::string r;
        std::cin >> r;
        if (r == "=") return 0;
        if (r == "<") hi = m - 1; else lo = m + 1;
    }
}
"""
GUESS = """\
import sys
secret = int(open(sys.argv[1]).read())
for _ in range(10):
    line = sys.stdin.readline()
    if not line.strip().isdigit():
        sys.exit(f"no guess: {line[:20]!r}")
    guess = int(line)
    print("=" if guess == secret else "<" if secret < guess else ">", flush=True)
    if guess == secret:
        sys.exit(0)
sys.exit("more than ten guesses")
"""
GUESS_CPP = """\
#include "testlib.h"
using namespace std;
int main(int argc, char* argv[]) {
    registerInteraction(argc, argv);
    int secret = inf.readInt(1, 1000, "secret");
    for (int asked = 1; asked <= 10; asked++) {
        int guess = ouf.readInt(1, 1000, "guess");
        tout << guess << endl;
        cout << (guess == secret ? "=" : secret < guess ? "<" : ">") << endl;
        if (guess == secret) quitf(_ok, "%d guesses", asked);
    }
    quitf(_wa, "more than ten guesses");
}
"""
# The interactor decides its number only when it must: it answers so that most are left.
ADAPTIVE = """\
import sys
left = set(range(1, int(open(sys.argv[1]).read()) + 1))
for asked in range(7):
    words = sys.stdin.readline().split()
    if len(words) != 2 or words[0] not in "?!":
        sys.exit("neither a question nor an answer")
    if words[0] == "!":
        if left != {int(words[1])}:
            sys.exit("it may still be another")
        sys.exit(0)
    below = {n for n in left if n < int(words[1])}
    yes = len(below) * 2 > len(left)
    left = below if yes else left - below
    print("yes" if yes else "no", flush=True)
sys.exit("too many questions")
"""
ADAPTIVE_RIGHT = (
    "lo, hi = 1, 32\nwhile lo < hi:\n    m = (lo + hi + 1) // 2\n    print('?', m, flush=True)\n"
    "    if input() == 'yes': hi = m - 1\n    else: lo = m\nprint('!', lo, flush=True)\n"
)
ECHO = """\
import sys
words = open(sys.argv[1]).read().split()
for word in words:
    print(word, flush=True)
    if input() != word[::-1]:
        sys.exit(f"{word} is not reversed")
"""
SUMS = """\
#include "testlib.h"
using namespace std;
int main(int argc, char* argv[]) {
    registerInteraction(argc, argv);
    int n = inf.readInt(), hits = 0;
    cout << n << endl;
    for (int i = 1; i <= n; i++) {
        cout << i << " " << i * i << endl;
        hits += ouf.readInt() == i + i * i;
    }
    if (hits == n) quitf(_ok, "all %d", n);
    quitp(double(hits) / n, "%d of %d", hits, n);
}
"""
SORT = """\
import sys
hidden = [int(word) for word in open(sys.argv[1]).read().split()]
print(len(hidden), flush=True)
for _ in range(200):
    words = input().split()
    if words[0] == "?":
        a, b = int(words[1]), int(words[2])
        print("<" if hidden[a] < hidden[b] else ">", flush=True)
    else:
        order = [int(word) for word in words[1:]]
        sys.exit([hidden[at] for at in order] != sorted(hidden))
sys.exit("too many comparisons")
"""
LONG = """\
import sys
n = int(open(sys.argv[1]).read())
total = 0
for at in range(n):
    print(at, flush=True)
    total += int(input())
sys.exit(total != n * (n - 1))
"""
NIM = """\
import sys
heap = int(open(sys.argv[1]).read())
print(heap, flush=True)
while True:
    take = int(input())
    if not 1 <= take <= 3 or take > heap:
        sys.exit("no such move")
    heap -= take
    if heap == 0:
        sys.exit(0)
    mine = min(heap, heap % 4 or 1)
    heap -= mine
    print(mine, flush=True)
    if heap == 0:
        sys.exit("the interactor has taken the last")
"""

INTERACTIVE_PROBLEMS = (
    InteractiveProblem(
        "guess a number",
        "python",
        GUESS,
        ("1\n", "777\n", "1000\n"),
        (("python", BISECT), ("cpp", BISECT_CPP)),
        (
            "for n in range(1, 1001):\n    print(n, flush=True)\n    input()",
            "print(1)",
            "print('x', flush=True)",
            "pass",
        ),
    ),
    InteractiveProblem(
        "guess a number, by testlib",
        "cpp",
        GUESS_CPP,
        ("1\n", "777\n"),
        (("python", BISECT), ("cpp", BISECT_CPP)),
        (
            "for n in range(1, 1001):\n    print(n, flush=True)\n    input()",
            "print(1)",
            "print(2000, flush=True)",
            "print('x', flush=True)",
            "pass",
        ),
    ),
    InteractiveProblem(
        "an adversary that decides late",
        "python",
        ADAPTIVE,
        ("32\n",),
        (("python", ADAPTIVE_RIGHT),),
        ("print('! 7', flush=True)", "print('? 5', flush=True)\ninput()\nprint('! 5', flush=True)", "print('hm')"),
    ),
    InteractiveProblem(
        "say it backwards",
        "python",
        ECHO,
        ("ab cd efg\n", "x\n"),
        (("python", "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)"),),
        ("import sys\nfor line in sys.stdin: print(line.strip(), flush=True)", "print('ba', flush=True)"),
    ),
    InteractiveProblem(
        "sums, with a score, by testlib",
        "cpp",
        SUMS,
        ("10\n",),
        (("python", "for _ in range(int(input())): print(sum(map(int, input().split())), flush=True)"),),
        ("for _ in range(int(input())): print(0, flush=True)", "print('x', flush=True)"),
        ("for i in range(int(input())): print(sum(map(int, input().split())) if i < 4 else -1, flush=True)", 0.4),
    ),
    InteractiveProblem(
        "sort by comparisons",
        "python",
        SORT,
        ("5 3 9 1\n", "2 1\n"),
        (
            (
                "python",
                "from functools import cmp_to_key\nn = int(input())\ndef ask(a, b):\n    print('?', a, b, flush=True)\n"
                "    return -1 if input() == '<' else 1\nprint('!', *sorted(range(n), key=cmp_to_key(ask)), "
                "flush=True)",
            ),
        ),
        ("n = int(input())\nprint('!', *range(n), flush=True)", "print('!', flush=True)"),
    ),
    InteractiveProblem(
        "a long dialogue",
        "python",
        LONG,
        ("3000\n",),
        (("python", "try:\n    while True: print(2 * int(input()), flush=True)\nexcept EOFError: pass"),),
        ("try:\n    while True: print(int(input()), flush=True)\nexcept EOFError: pass",),
    ),
    InteractiveProblem(
        "a game against the interactor",
        "python",
        NIM,
        ("5\n", "7\n"),
        (
            (
                "python",
                "heap = int(input())\nwhile True:\n    take = heap % 4 or 1\n    print(take, flush=True)\n"
                "    heap -= take\n    if heap <= 0: break\n    heap -= int(input())\n",
            ),
        ),
        ("print(4, flush=True)", "input()\nwhile True:\n    print(3, flush=True)\n    input()"),
    ),
)

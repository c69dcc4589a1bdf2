// What the playground begins with, and further examples to choose from.
const EMPTY = { prompt: "", language: "python", kind: "assert", entry: "", tests: {}, cases: [{ stdin: "", stdout: "" }], programs: [""], by: "default", spec: '{"combine": "auto"}', audit: false };

export const EXAMPLES = [
  {
    name: "Python, asserts: one is right, one nearly, one cheats",
    state: {
      ...EMPTY,
      prompt: "Write a function median(values) that returns the median of a list of numbers.",
      tests: { assert: "assert median([3, 1, 2]) == 2\nassert median([4, 1, 3, 2]) == 2.5\nassert median([7]) == 7" },
      programs: [
        "def median(values):\n    ordered = sorted(values)\n    half = len(ordered) // 2\n    return ordered[half]",
        "def median(values):\n    ordered = sorted(values)\n    half = len(ordered) // 2\n    if len(ordered) % 2:\n        return ordered[half]\n    return (ordered[half - 1] + ordered[half]) / 2",
        "class Anything(float):\n    def __eq__(self, other):\n        return True\n\ndef median(values):\n    return Anything()",
      ],
      audit: true,
    },
  },
  {
    name: "C++, standard input and output",
    state: {
      ...EMPTY,
      prompt: "Read n, then n integers. Print their sum.",
      language: "cpp",
      kind: "stdio",
      cases: [{ stdin: "3\n1 2 3\n", stdout: "6\n" }, { stdin: "2\n2000000000 2000000000\n", stdout: "4000000000\n" }],
      programs: [
        "#include <iostream>\nint main() {\n    int n, sum = 0, x;\n    std::cin >> n;\n    while (n-- && std::cin >> x) sum += x;\n    std::cout << sum << '\\n';\n}",
        "#include <iostream>\nint main() {\n    long long n, sum = 0, x;\n    std::cin >> n;\n    while (n-- && std::cin >> x) sum += x;\n    std::cout << sum << '\\n';\n}",
      ],
    },
  },
  {
    name: "Python, function calls",
    state: {
      ...EMPTY,
      prompt: "Write a function fizz(n): the list of the numbers from 1 to n that 3 divides.",
      kind: "function",
      entry: "fizz",
      tests: { function: "10 -> [3, 6, 9]\n2 -> []\n3 -> [3]" },
      programs: ["def fizz(n):\n    return [i for i in range(1, n + 1) if i % 3 == 0]", "def fizz(n):\n    return [i for i in range(n) if i % 3 == 0]"],
    },
  },
  {
    name: "Python, pytest",
    state: {
      ...EMPTY,
      prompt: "Write a class Stack with push, pop and len. pop of an empty stack raises IndexError.",
      kind: "pytest",
      tests: { pytest: "import pytest\n\ndef test_last_in_first_out():\n    stack = Stack()\n    stack.push(1)\n    stack.push(2)\n    assert stack.pop() == 2\n    assert len(stack) == 1\n\ndef test_empty():\n    with pytest.raises(IndexError):\n        Stack().pop()\n" },
      programs: [
        "class Stack:\n    def __init__(self):\n        self.items = []\n    def push(self, item):\n        self.items.append(item)\n    def pop(self):\n        return self.items.pop()\n    def __len__(self):\n        return len(self.items)",
        "class Stack(list):\n    push = list.append\n    def pop(self):\n        return super().pop(0) if self else None",
      ],
    },
  },
  {
    name: "No tests: the prompt's examples decide",
    state: {
      ...EMPTY,
      prompt: "Write a function add(a, b) that returns the sum of two numbers.\n\n>>> add(1, 2)\n3\n>>> add(0.5, 0.25)\n0.75\n",
      kind: "none",
      programs: ["def add(a, b):\n    return int(a) + int(b)", "def add(a, b):\n    return a + b", "def add(a, b):\n    return a - b"],
    },
  },
];

"""What tests and program share besides values: each row a test, a program that is right and one that is wrong."""

from __future__ import annotations

import pytest

from sandbox.judge import judge
from sandbox.sandbox import Sandbox
from sandbox.types import AssertSuite, Limits, Options, Program, PytestSuite, Report, Stop

SETUP = """
import asyncio, builtins, contextlib, csv, datetime, decimal, inspect, io, json, logging, os, pickle, random, re
import shutil, subprocess, sys, tempfile, time, unittest, urllib.request, warnings
from pathlib import Path
from unittest import mock
from unittest.mock import AsyncMock, MagicMock, Mock, PropertyMock, call, mock_open, patch
"""
CASE = "import unittest\nclass Case(unittest.TestCase):\n    def runTest(self): pass\ncase = Case()\n"

Row = tuple[str, str, str]  # test, right program, wrong program

FILES: dict[str, Row] = {
    "the program reads what the test wrote": (
        "with open('in.txt', 'w') as h:\n    h.write('a b\\nc')\nassert f('in.txt') == 3",
        "def f(p):\n    return len(open(p).read().split())",
        "def f(p):\n    return len(open(p).read())",
    ),
    "the test reads what the program wrote": (
        "f('/tmp/out.txt')\nassert open('/tmp/out.txt').read() == 'done'",
        "def f(p):\n    open(p, 'w').write('done')",
        "def f(p):\n    open(p, 'w').write('Done')",
    ),
    "nothing was written": (
        "f('/tmp/out.txt')\nassert os.path.exists('/tmp/out.txt')",
        "def f(p):\n    open(p, 'w').close()",
        "def f(p):\n    pass",
    ),
    "a temporary directory": (
        "with tempfile.TemporaryDirectory() as d:\n    for n in 'abc':\n        Path(d, n + '.txt').write_text(n)\n"
        "    assert f(d) == ['a.txt', 'b.txt', 'c.txt']",
        "import os\ndef f(d):\n    return sorted(os.listdir(d))",
        "import os\ndef f(d):\n    return []",
    ),
    "a named temporary file": (
        "with tempfile.NamedTemporaryFile('w', suffix='.csv', delete=False) as t:\n    t.write('a,b\\n1,2\\n')\n"
        "assert f(t.name) == [['a', 'b'], ['1', '2']]\nos.unlink(t.name)",
        "import csv\ndef f(p):\n    with open(p) as h:\n        return list(csv.reader(h))",
        "def f(p):\n    return [open(p).read()]",
    ),
    "a folder that the program makes": (
        "f('x/y/z')\nassert os.path.isdir('x/y/z') and os.listdir('x') == ['y']",
        "import os\ndef f(p):\n    os.makedirs(p)",
        "import os\ndef f(p):\n    os.mkdir('x')",
    ),
    "a file that the program removes": (
        "open('a.log', 'w').close(); open('b.txt', 'w').close()\nf('.')\n"
        "assert not os.path.exists('a.log') and os.path.exists('b.txt')",
        "import glob, os\ndef f(d):\n    for p in glob.glob(d + '/*.log'):\n        os.remove(p)",
        "import glob, os\ndef f(d):\n    for p in glob.glob(d + '/*.txt'):\n        os.remove(p)",
    ),
    "a folder that the program removes": (
        "os.makedirs('d/e'); open('d/e/f', 'w').close()\nf('d')\nassert not os.path.exists('d')",
        "import shutil\ndef f(d):\n    shutil.rmtree(d)",
        "import shutil\ndef f(d):\n    shutil.rmtree(d + '/e')",
    ),
    "a folder that the test removes": (
        "os.makedirs('d/e')\nassert f('d') is True\nshutil.rmtree('d')\nassert f('d') is False",
        "import os\ndef f(d):\n    return os.path.isdir(d)",
        "def f(d):\n    return True",
    ),
    "a file that is moved": (
        "os.mkdir('src'); os.mkdir('dst'); Path('src/a').write_bytes(b'\\xff\\x00')\nassert f('src', 'dst') == 1\n"
        "assert os.listdir('src') == [] and Path('dst/a').read_bytes() == b'\\xff\\x00'",
        "import os, shutil\ndef f(s, d):\n    names = os.listdir(s)\n    for n in names:\n"
        "        shutil.move(os.path.join(s, n), d)\n    return len(names)",
        "import os, shutil\ndef f(s, d):\n    names = os.listdir(s)\n    for n in names:\n"
        "        shutil.copy(os.path.join(s, n), d)\n    return len(names)",
    ),
    "the same size at once again": (
        "for text in ('aa', 'bb', 'cc', 'dd'):\n    Path('x').write_text(text)\n    assert f('x') == text",
        "def f(p):\n    return open(p).read()",
        "seen = []\ndef f(p):\n    seen.append(open(p).read())\n    return seen[0]",
    ),
    "the program writes the same size again": (
        "for i in range(5):\n    f('n', i)\n    assert Path('n').read_text() == str(i)",
        "def f(p, i):\n    with open(p, 'w') as h:\n        h.write(str(i))",
        "def f(p, i):\n    with open(p, 'w') as h:\n        h.write('0')",
    ),
    "appended by both": (
        "Path('log').write_text('1\\n')\nf('log', '2')\nwith open('log', 'a') as h:\n    h.write('3\\n')\n"
        "f('log', '4')\n"
        "assert Path('log').read_text() == '1\\n2\\n3\\n4\\n'",
        "def f(p, line):\n    with open(p, 'a') as h:\n        h.write(line + '\\n')",
        "def f(p, line):\n    with open(p, 'w') as h:\n        h.write(line + '\\n')",
    ),
    "json in and out": (
        "json.dump({'a': [1, 2]}, open('c.json', 'w'))\nf('c.json')\n"
        "assert json.load(open('c.json')) == {'a': [1, 2], 'n': 2}",
        "import json\ndef f(p):\n    d = json.load(open(p))\n    d['n'] = len(d['a'])\n"
        "    with open(p, 'w') as h:\n        json.dump(d, h)",
        "import json\ndef f(p):\n    d = json.load(open(p))\n    with open(p, 'w') as h:\n        json.dump(d, h)",
    ),
    "the mode of a file": (
        "Path('s.sh').write_text('#!/bin/sh')\nf('s.sh')\nassert os.stat('s.sh').st_mode & 0o777 == 0o755",
        "import os\ndef f(p):\n    os.chmod(p, 0o755)",
        "import os\ndef f(p):\n    os.chmod(p, 0o744)",
    ),
    "no right to read": (
        "Path('s').write_text('x')\nos.chmod('s', 0)\nassert f('s') == 'denied'",
        "def f(p):\n    try:\n        return open(p).read()\n    except PermissionError:\n        return 'denied'",
        "def f(p):\n    return open(p).read()",
    ),
    "the time of a file": (
        "Path('s').write_text('x')\nos.utime('s', (1000, 1000))\nassert f('s') == 1000",
        "import os\ndef f(p):\n    return os.path.getmtime(p)",
        "import os, time\ndef f(p):\n    return time.time()",
    ),
    "the size of a file": (
        "Path('big').write_bytes(bytes(300_000))\nassert f('big') == 300_000",
        "import os\ndef f(p):\n    return os.path.getsize(p)",
        "import os\ndef f(p):\n    return 0",
    ),
    "a working folder of the test's": (
        "os.mkdir('w'); os.chdir('w'); Path('a').write_text('1')\nassert f() == ['a']",
        "import os\ndef f():\n    return os.listdir('.')",
        "import os\ndef f():\n    return os.listdir('/tmp')",
    ),
    "a working folder of the program's": (
        "os.mkdir('w')\nf('w')\nassert os.path.basename(os.getcwd()) == 'w'",
        "import os\ndef f(d):\n    os.chdir(d)",
        "def f(d):\n    pass",
    ),
    "a module that the test writes": (
        "Path('plugin_x.py').write_text('NAME = 5')\nassert f('plugin_x') == 5",
        "import importlib\ndef f(n):\n    return importlib.import_module(n).NAME",
        "def f(n):\n    return n",
    ),
    "a module in a folder on the path": (
        "os.mkdir('lib'); Path('lib/plug_y.py').write_text('NAME = 6')\nsys.path.insert(0, os.path.abspath('lib'))\n"
        "assert f('plug_y') == 6",
        "import importlib\ndef f(n):\n    return importlib.import_module(n).NAME",
        "def f(n):\n    return 5",
    ),
    "an archive": (
        "Path('a.txt').write_text('one')\nf(['a.txt'], 'z.zip')\nimport zipfile\n"
        "assert zipfile.ZipFile('z.zip').read('a.txt') == b'one'",
        "import zipfile\ndef f(names, out):\n    with zipfile.ZipFile(out, 'w') as z:\n        for n in names:\n"
        "            z.write(n)",
        "import zipfile\ndef f(names, out):\n    with zipfile.ZipFile(out, 'w') as z:\n        z.writestr('a.txt', '')",
    ),
    "a data base": (
        "import sqlite3\nc = sqlite3.connect('d.db'); c.execute('create table t (n)'); c.execute('insert into t "
        "values (4)'); c.commit(); c.close()\nassert f('d.db') == 4",
        "import sqlite3\ndef f(p):\n    return sqlite3.connect(p).execute('select sum(n) from t').fetchone()[0]",
        "import sqlite3\ndef f(p):\n    return sqlite3.connect(p).execute('select count(n) from t').fetchone()[0]",
    ),
    "a pickle of plain values": (
        "f({'a': (1, 2)}, 'p.pkl')\nassert pickle.load(open('p.pkl', 'rb')) == {'a': (1, 2)}",
        "import pickle\ndef f(v, p):\n    with open(p, 'wb') as h:\n        pickle.dump(v, h)",
        "import pickle\ndef f(v, p):\n    with open(p, 'wb') as h:\n        pickle.dump(list(v), h)",
    ),
    "written while it is loaded": (
        "assert Path('made.txt').read_text() == 'once'\nf()",
        "open('made.txt', 'w').write('once')\ndef f(): pass",
        "open('made.txt', 'w').write('twice')\ndef f(): pass",
    ),
    "written before an error": (
        "try:\n    f('partial')\nexcept ValueError:\n    pass\nassert Path('partial').read_text() == 'half'",
        "def f(p):\n    with open(p, 'w') as h:\n        h.write('half')\n    raise ValueError",
        "def f(p):\n    raise ValueError",
    ),
    "written before a callback": (
        "seen = []\nf(lambda p: seen.append(open(p).read()))\nassert seen == ['now']",
        "def f(back):\n    with open('q', 'w') as h:\n        h.write('now')\n    back('q')",
        "def f(back):\n    with open('q', 'w') as h:\n        back('q')\n        h.write('now')",
    ),
    "files that the test lends": (
        "buffer = io.StringIO()\nf(buffer)\nassert buffer.getvalue() == 'a,b\\r\\n'",
        "import csv\ndef f(h):\n    csv.writer(h).writerow(['a', 'b'])",
        "import csv\ndef f(h):\n    csv.writer(h, delimiter=';').writerow(['a', 'b'])",
    ),
    "lines of a file that the test lends": (
        "assert f(io.StringIO('1\\n2\\n3\\n')) == 6",
        "def f(h):\n    return sum(int(line) for line in h)",
        "def f(h):\n    return len(h.readlines())",
    ),
}

ENVIRONMENT: dict[str, Row] = {
    "a variable": (
        "os.environ['COLOR'] = 'red'\nassert f() == 'red'",
        "import os\ndef f():\n    return os.environ['COLOR']",
        "import os\ndef f():\n    return os.environ.get('COLOUR')",
    ),
    "patch.dict": (
        "with patch.dict(os.environ, {'API_KEY': 'k1'}):\n    assert f() == 'k1'\nassert f() is None",
        "import os\ndef f():\n    return os.environ.get('API_KEY')",
        "import os\nkey = []\ndef f():\n    key.append(os.environ.get('API_KEY'))\n    return key[0]",
    ),
    "cleared": (
        "with patch.dict('os.environ', {}, clear=True):\n    assert f() == 0\nassert f() > 0",
        "import os\ndef f():\n    return len(os.environ)",
        "import os\ndef f():\n    return 1",
    ),
    "another mapping": (
        "with patch('os.environ', {'ONLY': '1'}):\n    assert f() == '1'",
        "import os\ndef f():\n    return os.getenv('ONLY')",
        "import os\ndef f():\n    return os.getenv('HOME')",
    ),
    "set by the program": (
        "f('MODE', 'fast')\nassert os.environ['MODE'] == 'fast' and os.getenv('MODE') == 'fast'",
        "import os\ndef f(k, v):\n    os.environ[k] = v",
        "import os\ndef f(k, v):\n    os.environ[k] = v.upper()",
    ),
    "removed by the program": (
        "os.environ['OLD'] = '1'\nf('OLD')\nassert 'OLD' not in os.environ",
        "import os\ndef f(k):\n    del os.environ[k]",
        "import os\ndef f(k):\n    os.environ[k] = ''",
    ),
    "a time zone": (
        "os.environ['TZ'] = 'Asia/Tokyo'\ntime.tzset()\nassert f() == 9",
        "import time\ndef f():\n    return -time.timezone // 3600",
        "def f():\n    return 0",
    ),
    "arguments": (
        "with patch('sys.argv', ['prog', '--n', '7']):\n    assert f() == 7",
        "import argparse\ndef f():\n    p = argparse.ArgumentParser()\n    p.add_argument('--n', type=int)\n"
        "    return p.parse_args().n",
        "import sys\ndef f():\n    return len(sys.argv)",
    ),
    "arguments assigned": (
        "sys.argv = ['a', 'b']\nassert f() == ['b']",
        "import sys\ndef f():\n    return sys.argv[1:]",
        "import sys\ndef f():\n    return sys.argv",
    ),
    "a recursion limit": (
        "old = sys.getrecursionlimit()\nsys.setrecursionlimit(5000)\nassert f(3000) == 3000\n"
        "sys.setrecursionlimit(old)",
        "def f(n):\n    return 0 if n == 0 else 1 + f(n - 1)",
        "def f(n):\n    return 0 if n == 0 else 2 + f(n - 1)",
    ),
    "random numbers": (
        "random.seed(42)\nexpected = [random.randint(1, 100) for _ in range(5)]\nrandom.seed(42)\n"
        "assert f(5) == expected",
        "import random\ndef f(n):\n    return [random.randint(1, 100) for _ in range(n)]",
        "import random\ndef f(n):\n    return [random.randint(0, 100) for _ in range(n)]",
    ),
    "random numbers twice": (
        "random.seed(1)\na = f()\nrandom.seed(1)\nb = f()\nassert a == b and f() != a",
        "import random\ndef f():\n    return random.random()",
        "import itertools\nn = itertools.count()\ndef f():\n    return next(n)",
    ),
    "random numbers of numpy": (
        "import numpy as np\nnp.random.seed(7)\nx = np.random.rand(3).tolist()\nnp.random.seed(7)\nassert f(3) == x",
        "import numpy as np\ndef f(n):\n    return np.random.rand(n).tolist()",
        "import numpy as np\ndef f(n):\n    return np.random.randn(n).tolist()",
    ),
    "a decimal context": (
        "with decimal.localcontext() as c:\n    c.prec = 5\n    assert f(1, 3) == decimal.Decimal('0.33333')\n"
        "assert len(str(f(1, 3))) == 30",
        "from decimal import Decimal\ndef f(a, b):\n    return Decimal(a) / Decimal(b)",
        "from decimal import Decimal\ndef f(a, b):\n    return round(Decimal(a) / Decimal(b), 28)",
    ),
    "rounding": (
        "decimal.getcontext().prec = 3\ndecimal.getcontext().rounding = decimal.ROUND_DOWN\n"
        "assert f('2', '3') == decimal.Decimal('0.666')",
        "from decimal import Decimal\ndef f(a, b):\n    return Decimal(a) / Decimal(b)",
        "from decimal import Decimal\ndef f(a, b):\n    return Decimal('0.667')",
    ),
}

PRINTED: dict[str, Row] = {
    "redirect_stdout": (
        "b = io.StringIO()\nwith contextlib.redirect_stdout(b):\n    f('Bo')\nassert b.getvalue() == 'Hello, Bo!\\n'",
        "def f(n):\n    print(f'Hello, {n}!')",
        "def f(n):\n    return f'Hello, {n}!\\n'",
    ),
    "patched StringIO": (
        "with patch('sys.stdout', new_callable=io.StringIO) as out:\n    f([1, 2])\n"
        "assert out.getvalue().strip().split('\\n') == ['1', '2']",
        "def f(xs):\n    for x in xs:\n        print(x)",
        "def f(xs):\n    print(*xs)",
    ),
    "sys.stdout assigned": (
        "old, sys.stdout = sys.stdout, io.StringIO()\nf()\nheard, sys.stdout = sys.stdout.getvalue(), old\n"
        "assert heard == 'x'",
        "import sys\ndef f():\n    sys.stdout.write('x')",
        "import sys\ndef f():\n    sys.stderr.write('x')",
    ),
    "stderr": (
        "b = io.StringIO()\nwith contextlib.redirect_stderr(b):\n    f()\nassert 'usage' in b.getvalue()",
        "import sys\ndef f():\n    print('usage: x', file=sys.stderr)",
        "import sys\ndef f():\n    print('usage: x')",
    ),
    "both in one": (
        "b = io.StringIO()\nwith contextlib.redirect_stdout(b), contextlib.redirect_stderr(b):\n    f()\n"
        "assert b.getvalue() == '1\\n2\\n3\\n'",
        "import sys\ndef f():\n    print(1)\n    print(2, file=sys.stderr)\n    print(3)",
        "import sys\ndef f():\n    print(2, file=sys.stderr)\n    print(1)\n    print(3)",
    ),
    "a mock of a stream": (
        "with patch('sys.stdout') as out:\n    f()\nout.write.assert_any_call('hi')",
        "def f():\n    print('hi')",
        "def f():\n    print('ho')",
    ),
    "print is patched": (
        "with patch('builtins.print') as p:\n    f(3)\np.assert_has_calls([call(0), call(1), call(2)])\n"
        "assert p.call_count == 3",
        "def f(n):\n    for i in range(n):\n        print(i)",
        "def f(n):\n    for i in range(n + 1):\n        print(i)",
    ),
    "print to stderr is patched": (
        "with patch('builtins.print') as p:\n    f()\np.assert_called_once_with('bad', file=sys.stderr)",
        "import sys\ndef f():\n    print('bad', file=sys.stderr)",
        "import sys\ndef f():\n    print('bad')",
    ),
    "before an error": (
        "b = io.StringIO()\nwith contextlib.redirect_stdout(b):\n    try:\n        f()\n    except ValueError:\n"
        "        print('caught')\nassert b.getvalue() == 'a\\ncaught\\n'",
        "def f():\n    print('a')\n    raise ValueError",
        "def f():\n    raise ValueError",
    ),
    "in order with the test's own": (
        "b = io.StringIO()\nwith contextlib.redirect_stdout(b):\n    print('<')\n    f(lambda: print('*'))\n"
        "    print('>')\n"
        "assert b.getvalue().split() == ['<', 'a', '*', 'b', '>']",
        "def f(g):\n    print('a')\n    g()\n    print('b')",
        "def f(g):\n    print('a')\n    print('b')\n    g()",
    ),
    "a method's": (
        "d = Dog('Rex')\nb = io.StringIO()\nwith contextlib.redirect_stdout(b):\n    d.bark()\n"
        "assert b.getvalue() == 'Rex!\\n'",
        "class Dog:\n    def __init__(self, n): self.n = n\n    def bark(self): print(self.n + '!')\nf = Dog",
        "class Dog:\n    def __init__(self, n): self.n = n; print(n + '!')\n    def bark(self): pass\nf = Dog",
    ),
    "bytes": (
        "t = io.TextIOWrapper(io.BytesIO(), 'utf-8')\nwith contextlib.redirect_stdout(t):\n    f()\n"
        "t.flush(); assert t.buffer.getvalue() == b'xy'",
        "import sys\ndef f():\n    sys.stdout.write('x')\n    sys.stdout.flush()\n    sys.stdout.buffer.write(b'y')",
        "import sys\ndef f():\n    sys.stdout.buffer.write(b'yx')",
    ),
    "nothing": (
        "b = io.StringIO()\nwith contextlib.redirect_stdout(b):\n    f()\nassert b.getvalue() == ''",
        "def f():\n    return 1",
        "def f():\n    print()",
    ),
    "a file that is the stream": (
        "b = io.StringIO()\nf(b)\nassert b.getvalue() == 'row\\n'",
        "def f(out):\n    print('row', file=out)",
        "def f(out):\n    print('row')",
    ),
    "a warning recorded": (
        "with warnings.catch_warnings(record=True) as w:\n    warnings.simplefilter('always')\n    f()\n"
        "assert len(w) == 1 and issubclass(w[0].category, DeprecationWarning) and 'old' in str(w[0].message)",
        "import warnings\ndef f():\n    warnings.warn('old thing', DeprecationWarning)",
        "import warnings\ndef f():\n    warnings.warn('old thing')",
    ),
    "a warning expected": (
        CASE + "with case.assertWarns(UserWarning):\n    f()",
        "import warnings\ndef f():\n    warnings.warn('careful')",
        "def f():\n    print('careful')",
    ),
    "a warning as an error": (
        "with warnings.catch_warnings():\n    warnings.simplefilter('error')\n    try:\n        f()\n"
        "    except UserWarning:\n        pass\n    else:\n        assert False\nassert f() == 1",
        "import warnings\ndef f():\n    warnings.warn('careful')\n    return 1",
        "def f():\n    return 1",
    ),
    "no warning": (
        "with warnings.catch_warnings(record=True) as w:\n    warnings.simplefilter('always')\n    f()\nassert not w",
        "def f():\n    return 1",
        "import warnings\ndef f():\n    warnings.warn('careful')",
    ),
    "a log": (
        CASE
        + "with case.assertLogs('shop', level='INFO') as seen:\n    f()\nassert seen.output == ['INFO:shop:sold 3']",
        "import logging\nlog = logging.getLogger('shop')\ndef f():\n    log.debug('x')\n    log.info('sold %d', 3)",
        "import logging\nlog = logging.getLogger('shop')\ndef f():\n    log.warning('sold %d', 3)",
    ),
    "the root's log": (
        CASE + "with case.assertLogs() as seen:\n    f()\nassert seen.records[0].getMessage() == 'bad'\n"
        "assert seen.records[0].levelname == 'ERROR'",
        "import logging\ndef f():\n    logging.error('bad')",
        "import logging\ndef f():\n    logging.debug('bad')",
    ),
    "a handler of the test's": (
        "b = io.StringIO()\nlog = logging.getLogger('app')\nlog.setLevel(logging.DEBUG)\n"
        "log.addHandler(logging.StreamHandler(b))\nf()\nassert b.getvalue() == 'deep\\n'",
        "import logging\ndef f():\n    logging.getLogger('app.part').debug('deep')",
        "import logging\ndef f():\n    logging.getLogger('other').debug('deep')",
    ),
}

INPUT: dict[str, Row] = {
    "input returns": (
        "with patch('builtins.input', return_value='5'):\n    assert f() == 6",
        "def f():\n    return int(input('n? ')) + 1",
        "def f():\n    return input('n? ') + '1'",
    ),
    "input in turn": (
        "with patch('builtins.input', side_effect=['2', '3', '4']):\n    assert f() == 9",
        "def f():\n    return sum(int(input()) for _ in range(3))",
        "def f():\n    return sum(int(input()) for _ in range(2))",
    ),
    "input runs out": (
        "with patch('builtins.input', side_effect=['1', EOFError]):\n    assert f() == ['1']",
        "def f():\n    got = []\n    while True:\n        try:\n            got.append(input())\n"
        "        except EOFError:\n            return got",
        "def f():\n    return []",
    ),
    "the prompt": (
        "with patch('builtins.input', return_value='x') as i:\n    f()\ni.assert_called_once_with('Name: ')",
        "def f():\n    return input('Name: ')",
        "def f():\n    return input('Name:')",
    ),
    "input assigned": (
        "lines = iter(['a', 'b'])\nbuiltins.input = lambda prompt='': next(lines)\nassert f() == 'ab'",
        "def f():\n    return input() + input('more')",
        "def f():\n    return input()",
    ),
    "input as a decorator": (
        "@patch('builtins.input', lambda *a: 'y')\ndef t():\n    assert f() is True\nt()",
        "def f():\n    return input('sure?') == 'y'",
        "def f():\n    return input('sure?') == 'n'",
    ),
    "stdin patched": (
        "with patch('sys.stdin', io.StringIO('3\\n4\\n')):\n    assert f() == 7",
        "import sys\ndef f():\n    return sum(map(int, sys.stdin))",
        "import sys\ndef f():\n    return int(sys.stdin.readline())",
    ),
    "stdin assigned": (
        "sys.stdin = io.StringIO('3 4')\nassert f() == 12\nsys.stdin = io.StringIO('5 5')\nassert f() == 25",
        "def f():\n    a, b = map(int, input().split())\n    return a * b",
        "def f():\n    a, b = map(int, input().split())\n    return a + b",
    ),
    "what is left of stdin": (
        "sys.stdin = io.StringIO('a\\nb\\nc\\n')\nassert f() == 'a' and input() == 'b' and f() == 'c'",
        "def f():\n    return input()",
        "import sys\ndef f():\n    return sys.stdin.read().split()[0]",
    ),
    "stdin and stdout": (
        "with patch('sys.stdin', io.StringIO('4\\n')), patch('sys.stdout', new_callable=io.StringIO) as out:\n    f()\n"
        "assert out.getvalue() == '? 16\\n'",
        "def f():\n    print(int(input('? ')) ** 2)",
        "def f():\n    print(int(input()) ** 2)",
    ),
    "lines of a list": (
        "with patch('sys.stdin', ['1\\n', '2\\n']):\n    assert f() == 3",
        "import sys\ndef f():\n    return sum(int(x) for x in sys.stdin)",
        "import sys\ndef f():\n    return len(list(sys.stdin))",
    ),
    "a mock of stdin": (
        "with patch('sys.stdin') as s:\n    s.readline.side_effect = ['7\\n', '']\n    assert f() == 7",
        "import sys\ndef f():\n    return int(sys.stdin.readline())",
        "import sys\ndef f():\n    return 8 if sys.stdin.readline() else 0",
    ),
    "bytes of stdin": (
        "with patch('sys.stdin', io.TextIOWrapper(io.BytesIO(b'1 2 3'))):\n    assert f() == 6",
        "import sys\ndef f():\n    return sum(map(int, sys.stdin.buffer.read().split()))",
        "import sys\ndef f():\n    return len(sys.stdin.buffer.read().split())",
    ),
}

PATCHED: dict[str, Row] = {
    "sleep": (
        "with patch('time.sleep') as s:\n    assert f(3) == 3\nassert s.call_count == 3 and s.call_args == call(60)",
        "import time\ndef f(n):\n    for _ in range(n):\n        time.sleep(60)\n    return n",
        "import time\ndef f(n):\n    time.sleep(60)\n    return n",
    ),
    "a clock": (
        "with patch('time.time', side_effect=[100.0, 103.5]):\n    assert f() == 3.5",
        "import time\ndef f():\n    a = time.time()\n    return time.time() - a",
        "import time\ndef f():\n    return time.time()",
    ),
    "a date": (
        "with patch('datetime.datetime') as d:\n    d.now.return_value = MagicMock(year=1999)\n    assert f() == 1999",
        "import datetime\ndef f():\n    return datetime.datetime.now().year",
        "import datetime\ndef f():\n    return datetime.date.today().year",
    ),
    "a date that is real": (
        "day = datetime.datetime(2020, 2, 29)\nwith patch('__main__.clock') as d:\n    d.now.return_value = day\n"
        "    assert f() == day + datetime.timedelta(days=1)",
        "from datetime import datetime as clock, timedelta\ndef f():\n    return clock.now() + timedelta(days=1)",
        "from datetime import datetime as clock, timedelta\ndef f():\n    return clock.now() + timedelta(days=2)",
    ),
    "luck": (
        "with patch('random.randint', return_value=6) as r:\n    assert f() == 12\nr.assert_called_with(1, 6)",
        "import random\ndef f():\n    return random.randint(1, 6) + random.randint(1, 6)",
        "import random\ndef f():\n    return 2 * random.randint(0, 6)",
    ),
    "luck in turn": (
        "with patch('random.choice', side_effect=['a', 'b']):\n    assert f('xyz') == 'ab'",
        "import random\ndef f(s):\n    return random.choice(s) + random.choice(s)",
        "import random\ndef f(s):\n    return random.choice(s) * 2",
    ),
    "luck assigned": (
        "random.random = lambda: 0.25\nassert f() == 'low'",
        "import random\ndef f():\n    return 'low' if random.random() < 0.5 else 'high'",
        "import random\ndef f():\n    return 'low' if random.random() > 0.5 else 'high'",
    ),
    "open for reading": (
        "with patch('builtins.open', mock_open(read_data='1\\n2\\n')) as m:\n    assert f('any.txt') == 3\n"
        "m.assert_called_once_with('any.txt')",
        "def f(p):\n    with open(p) as h:\n        return sum(int(x) for x in h)",
        "def f(p):\n    with open(p) as h:\n        return len(h.read())",
    ),
    "open for writing": (
        "m = mock_open()\nwith patch('builtins.open', m):\n    f('o.txt', 'hi')\n"
        "m.assert_called_once_with('o.txt', 'w')\n"
        "m().write.assert_called_once_with('hi')\nassert not os.path.exists('o.txt')",
        "def f(p, t):\n    with open(p, 'w') as h:\n        h.write(t)",
        "def f(p, t):\n    with open(p, 'w') as h:\n        h.write(t + '\\n')",
    ),
    "a file that is not there": (
        "with patch('builtins.open', side_effect=FileNotFoundError):\n    assert f('x') is None",
        "def f(p):\n    try:\n        return open(p).read()\n    except FileNotFoundError:\n        return None",
        "def f(p):\n    return open(p).read()",
    ),
    "what exists": (
        "with patch('os.path.exists', return_value=True), patch('os.listdir', return_value=['a', 'b.py']):\n"
        "    assert f('/nowhere') == ['b.py']",
        "import os\ndef f(d):\n    if not os.path.exists(d):\n        return None\n"
        "    return [n for n in os.listdir(d) if n.endswith('.py')]",
        "import os\ndef f(d):\n    return os.listdir(d) if os.path.exists(d) else None",
    ),
    "a method of a class of the library": (
        "with patch.object(Path, 'exists', return_value=True):\n    assert f('/nowhere')\nassert not f('/nowhere')",
        "from pathlib import Path\ndef f(p):\n    return Path(p).exists()",
        "from pathlib import Path\ndef f(p):\n    return True",
    ),
    "a function for a method": (
        "with patch.object(Path, 'read_text', lambda self: str(self) + '!'):\n    assert f('q') == 'q!'",
        "from pathlib import Path\ndef f(p):\n    return Path(p).read_text()",
        "from pathlib import Path\ndef f(p):\n    return str(Path(p))",
    ),
    "a command": (
        "with patch('subprocess.run') as run:\n    run.return_value = MagicMock(returncode=0, stdout='v1\\n')\n"
        "    assert f() == 'v1'\nrun.assert_called_once_with(['git', 'v'], capture_output=True, text=True)",
        "import subprocess\ndef f():\n    return subprocess.run(['git', 'v'], capture_output=True, text=True)"
        ".stdout.strip()",
        "import subprocess\ndef f():\n    return subprocess.run(['git', 'v'], capture_output=True).stdout.strip()",
    ),
    "a command that fails": (
        "with patch('subprocess.check_output', side_effect=subprocess.CalledProcessError(3, 'x')):\n"
        "    assert f() == 3",
        "import subprocess\ndef f():\n    try:\n        subprocess.check_output(['x'])\n"
        "    except subprocess.CalledProcessError as e:\n        return e.returncode",
        "import subprocess\ndef f():\n    try:\n        subprocess.check_output(['x'])\n"
        "    except subprocess.CalledProcessError as e:\n        return e.cmd",
    ),
    "the net": (
        "with patch('urllib.request.urlopen') as u:\n"
        "    u.return_value.__enter__.return_value.read.return_value = b'{}'\n"
        "    assert f('http://a') == {}\nassert u.call_args[0][0] == 'http://a'",
        "import json, urllib.request\ndef f(url):\n    with urllib.request.urlopen(url) as r:\n"
        "        return json.loads(r.read())",
        "import json, urllib.request\ndef f(url):\n    with urllib.request.urlopen(url + '/') as r:\n"
        "        return json.loads(r.read())",
    ),
    "exit": (
        "with patch('sys.exit') as e:\n    f()\ne.assert_called_once_with(2)",
        "import sys\ndef f():\n    sys.exit(2)",
        "import sys\ndef f():\n    sys.exit(1)",
    ),
    "a helper of the program": (
        "with patch('__main__.helper', return_value=9) as h:\n    assert f(1) == 10\nh.assert_called_once_with(1)\n"
        "assert f(1) == 2",
        "def helper(x): return x\ndef f(x): return helper(x) + 1",
        "def helper(x): return x\ndef f(x): return x + 1",
    ),
    "a constant of the program": (
        "with patch('__main__.RATE', 3):\n    assert f(5) == 15\nassert f(5) == 10",
        "RATE = 2\ndef f(x): return x * RATE",
        "RATE = 2\ndef f(x, r=RATE): return x * r",
    ),
    "a method of the program's class": (
        "with patch.object(Shop, 'price', return_value=7) as p:\n    assert f(2) == 14\nassert f(2) == 2",
        "class Shop:\n    def price(self): return 1\ndef f(n): return n * Shop().price()",
        "class Shop:\n    def price(self): return 1\ndef f(n): return n",
    ),
    "a function for the program's method": (
        "with patch.object(Shop, 'price', lambda self: self.base * 5):\n    assert f(2) == 30",
        "class Shop:\n    base = 3\n    def price(self): return self.base\ndef f(n): return n * Shop().price()",
        "class Shop:\n    base = 4\n    def price(self): return self.base\ndef f(n): return n * Shop().price()",
    ),
    "a property of the program": (
        "with patch('__main__.Shop.open', new_callable=PropertyMock, return_value=False):\n    assert f() == 'shut'\n"
        "assert f() == 'open'",
        "class Shop:\n    @property\n    def open(self): return True\n"
        "def f(): return 'open' if Shop().open else 'shut'",
        "class Shop:\n    @property\n    def open(self): return True\ndef f(): return 'open'",
    ),
    "an attribute of an object": (
        "s = Shop()\nwith patch.object(s, 'stock', {'a': 5}):\n    assert s.count('a') == 5\nassert s.count('a') == 0",
        "class Shop:\n    def __init__(self): self.stock = {}\n"
        "    def count(self, k): return self.stock.get(k, 0)\nf = Shop",
        "class Shop:\n    def __init__(self): self.stock = {}\n    def count(self, k): return 5\nf = Shop",
    ),
    "a class of the program": (
        "with patch('__main__.Client') as C:\n    C.return_value.get.return_value = {'id': 4}\n    assert f(4) == 4\n"
        "C.assert_called_once_with('db')\nC.return_value.get.assert_called_once_with(4)",
        "class Client:\n    def __init__(self, n): raise OSError\ndef f(i): return Client('db').get(i)['id']",
        "class Client:\n    def __init__(self, n): raise OSError\ndef f(i): return Client('db').get(0)['id']",
    ),
    "a patcher that is started": (
        "p = patch('time.sleep')\ns = p.start()\nf()\np.stop()\ns.assert_called_once_with(9)",
        "import time\ndef f(): time.sleep(9)",
        "import time\ndef f(): time.sleep(8.0 - 1)",
    ),
    "two decorators": (
        "@patch('os.path.getsize', return_value=10)\n@patch('os.path.isfile', return_value=True)\n"
        "def t(isfile, size):\n"
        "    assert f('a') == 10\n    isfile.assert_called_once_with('a')\nt()",
        "import os\ndef f(p): return os.path.getsize(p) if os.path.isfile(p) else 0",
        "import os\ndef f(p): return os.path.getsize(p)",
    ),
    "in a TestCase": (
        "class T(unittest.TestCase):\n    @patch('random.uniform', return_value=0.5)\n    def test_it(self, u):\n"
        "        self.assertEqual(f(), 1.0)\n        u.assert_called_once()\n"
        "r = unittest.TestResult()\nT('test_it').run(r)\nassert r.wasSuccessful()",
        "import random\ndef f(): return random.uniform(0, 1) * 2",
        "import random\ndef f(): return random.uniform(0, 1) + random.uniform(0, 1)",
    ),
    "autospec": (
        "with patch('os.rename', autospec=True) as r:\n    f('a', 'b')\nr.assert_called_once_with('a', 'b')",
        "import os\ndef f(a, b): os.rename(a, b)",
        "import os\ndef f(a, b): os.rename(b, a)",
    ),
    "multiple": (
        "with patch.multiple('os', getcwd=MagicMock(return_value='/w'), getpid=MagicMock(return_value=7)):\n"
        "    assert f() == ('/w', 7)",
        "import os\ndef f(): return os.getcwd(), os.getpid()",
        "import os\ndef f(): return os.getcwd(), 1",
    ),
    "a mock as an argument": (
        "db = MagicMock()\ndb.query.return_value = [1, 2]\nassert f(db) == 3\n"
        "db.query.assert_called_once_with('all', limit=2)\ndb.close.assert_called_once_with()",
        "def f(db):\n    rows = db.query('all', limit=2)\n    db.close()\n    return sum(rows)",
        "def f(db):\n    return sum(db.query('all', limit=2))",
    ),
    "a context of a mock": (
        "m = MagicMock()\nm.__enter__.return_value = 5\nassert f(m) == 5\nm.__exit__.assert_called_once()",
        "def f(m):\n    with m as x:\n        return x",
        "def f(m):\n    return m.__enter__()",
    ),
    "a callback is a mock": (
        "cb = Mock()\nf([1, 2], cb)\nassert cb.call_args_list == [call(1), call(2)]",
        "def f(xs, cb):\n    for x in xs:\n        cb(x)",
        "def f(xs, cb):\n    cb(*xs)",
    ),
    "what a mock is given": (
        "m = MagicMock()\nf(m)\nassert m.timeout == 5 and m.mock_calls == [call.go(1)]",
        "def f(m):\n    m.timeout = 5\n    m.go(1)",
        "def f(m):\n    m.go(1)",
    ),
    "an async mock": (
        "with patch('__main__.fetch', new_callable=AsyncMock, return_value=4) as m:\n    assert asyncio.run(f()) == 8\n"
        "m.assert_awaited_once_with('u')",
        "async def fetch(u): raise OSError\nasync def f(): return 2 * await fetch('u')",
        "async def fetch(u): raise OSError\nasync def f(): return 8",
    ),
    "an async callback": (
        "async def back(x):\n    return x + 1\nassert asyncio.run(f(back)) == 3",
        "async def f(g): return await g(2)",
        "async def f(g): return await g(3)",
    ),
    "a module that is not there": (
        "sys.modules['payments'] = Mock()\nsys.modules['payments'].charge.return_value = 'ok'\nassert f(3) == 'ok'\n"
        "sys.modules['payments'].charge.assert_called_once_with(3)",
        "def f(n):\n    import payments\n    return payments.charge(n)",
        "def f(n):\n    import payments\n    return payments.charge(str(n))",
    ),
    "a module that is hidden": (
        "with patch.dict('sys.modules', {'json': None}):\n    assert f() == 'none'\nassert f() == 'json'",
        "def f():\n    try:\n        import json\n    except ImportError:\n        return 'none'\n    return 'json'",
        "def f():\n    return 'json'",
    ),
    "monkeypatch sets a function": (
        "from _pytest.monkeypatch import MonkeyPatch\nwith MonkeyPatch.context() as m:\n"
        "    m.setattr(time, 'sleep', lambda s: None)\n    m.setenv('PAUSE', '99')\n    assert f() == 99",
        "import os, time\ndef f():\n    n = int(os.environ['PAUSE'])\n    time.sleep(1000 * n)\n    return n",
        "import os, time\ndef f():\n    time.sleep(0)\n    return int(os.environ['PAUSE']) + 1",
    ),
    "monkeypatch by a dotted name": (
        "from _pytest.monkeypatch import MonkeyPatch\nwith MonkeyPatch.context() as m:\n"
        "    m.setattr('random.randint', lambda a, b: b)\n    assert f() == 12\nassert 2 <= f() <= 12",
        "import random\ndef f(): return random.randint(1, 6) + random.randint(1, 6)",
        "import random\ndef f(): return random.randint(1, 5) + random.randint(1, 6)",
    ),
    "monkeypatch takes away": (
        "from _pytest.monkeypatch import MonkeyPatch\nwith MonkeyPatch.context() as m:\n"
        "    m.delattr('os.getlogin')\n    assert f() == 'nobody'",
        "import os\ndef f(): return os.getlogin() if hasattr(os, 'getlogin') else 'nobody'",
        "import os\ndef f(): return os.getlogin()",
    ),
    "a fake of the test's": (
        "class Fake:\n    def __init__(self): self.sent = []\n    def send(self, x): self.sent.append(x)\n"
        "fake = Fake()\nwith patch('__main__.make', lambda: fake):\n    f('m')\nassert fake.sent == ['m']",
        "def make(): raise OSError\ndef f(x): make().send(x)",
        "def make(): raise OSError\ndef f(x): make().send(x * 2)",
    ),
}

ROWS = {
    f"{kind}: {name}": row
    for kind, rows in (
        ("files", FILES),
        ("environment", ENVIRONMENT),
        ("printed", PRINTED),
        ("input", INPUT),
        ("patched", PATCHED),
    )
    for name, row in rows.items()
}


def run(sandbox: Sandbox, source: str, *tests: str, setup: str = SETUP) -> Report:
    """Without the control run: some of these tests are right for a program that does nothing."""
    suite = AssertSuite(tests, setup, "f")
    return judge(Program("python", source), suite, Limits(cpu_s=5), Stop(), sandbox, Options(control=False))


@pytest.mark.parametrize("name", ROWS)
def test_a_right_program_passes_a_test_that_shares_its_world(sandbox: Sandbox, name: str) -> None:
    test, right, _ = ROWS[name]
    report = run(sandbox, right, test)
    assert report.verdict == "passed", f"{report.tests[0].detail} {report.tests[0].stderr}"


@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_program_fails_a_test_that_shares_its_world(sandbox: Sandbox, name: str) -> None:
    test, _, wrong = ROWS[name]
    report = run(sandbox, wrong, test)
    assert report.verdict in ("wrong_answer", "runtime_error", "no_result"), report.tests[0].detail


# programs that abuse it

TAKE_OVER = """
import os, sys
def endpoint():
    frame = sys._getframe()
    while "endpoint" not in frame.f_locals or not hasattr(frame.f_locals["endpoint"], "state"):
        frame = frame.f_back
    return frame.f_locals["endpoint"]
def tell(tree):
    endpoint().state.changes = lambda _: tree
def f():
    tell(TREE)
    return 1
"""

LIES: dict[str, str] = {
    "no object": "[1]",
    "files that are none": "{'files': 5}",
    "names that are numbers": "{'files': {'put': [[5, 420, 0, 'text', 'x']]}}",
    "up and out": "{'files': {'put': [['../etc/x', 420, 0, 'text', 'x']]}}",
    "up and out from below": "{'files': {'put': [['a/../../x', 420, 0, 'text', 'x']]}}",
    "an absolute name": "{'files': {'put': [['/etc/passwd', 420, 0, 'text', 'x']]}}",
    "an empty name": "{'files': {'put': [['', 420, 0, 'text', 'x']]}}",
    "a name with NUL": "{'files': {'put': [['a\\0b', 420, 0, 'text', 'x']]}}",
    "the harness's own file": "{'files': {'put': [['main.py', 420, 0, 'text', 'x']]}}",
    "a name of lone surrogates": "{'files': {'put': [['\\ud800', 420, 0, 'text', 'x']]}}",
    "a name too deep": "{'files': {'put': [['a/' * 100 + 'a', 420, 0, 'text', 'x']]}}",
    "a name too long": "{'files': {'put': [['a' * 10_000, 420, 0, 'text', 'x']]}}",
    "a folder to remove above": "{'files': {'gone': ['..']}}",
    "too many files": "{'files': {'put': [[f'x{i}', 420, 0, 'text', ''] for i in range(100_000)]}}",
    "too many folders": "{'files': {'new': [[f'x{i}', 493] for i in range(100_000)]}}",
    "too many bytes": "{'files': {'put': [['x', 420, 0, 'text', 'x' * 5_000_000]]}}",
    "contents that are none": "{'files': {'put': [['x', 420, 0, 'hex', 'zz']]}}",
    "a time beyond": "{'files': {'put': [['x', 420, 1 << 80, 'text', 'x']]}}",
    "a mode that is none": "{'files': {'put': [['x', 'rw', 0, 'text', 'x']]}}",
    "a folder to go to above": "{'place': [True, '../..']}",
    "a variable that is none": "{'env': [['A=B', 'x']]}",
    "a value that is none": "{'env': [['A', ['x']]]}",
    "an environment that is none": "{'env': 5}",
    "too many variables": "{'env': [[f'A{i}', 'x'] for i in range(100_000)]}",
    "text that is none": "{'said': [['stdout', 5]]}",
    "a stream that is none": "{'said': [['stdin', 'x']]}",
    "too much text": "{'said': [['stdout', 'x' * 2_000_000]]}",
    "too many texts": "{'said': [['stdout', '']] * 100_000}",
    "reading that is none": "{'read': -1}",
    "reading without end": "{'read': 10 ** 40}",
    "warnings that are none": "{'warned': [5]}",
    "a warning of no class": "{'warned': [[{'t': 'type', 'v': 'int'}, 'x', 'f', 1]]}",
    "records that are none": "{'logged': [[1, 2, 3, 4, 5, 6, 7]]}",
    "what was left out is none": "{'left_out': 7}",
}

ALL_EARS = """
import logging, warnings, contextlib
os.environ.get('X')
logging.getLogger('a').addHandler(logging.NullHandler())
sys.stdin = io.StringIO('abc')
"""


@pytest.mark.parametrize("name", LIES)
def test_a_program_that_lies_about_its_world_fails_and_harms_nobody(sandbox: Sandbox, name: str) -> None:
    source = TAKE_OVER.replace("TREE", LIES[name])
    test = (
        "with warnings.catch_warnings(record=True), contextlib.redirect_stdout(io.StringIO()):\n"
        "    warnings.simplefilter('always')\n    assert f() == 1"
    )
    sound = "x = [1]\nassert x == [1] and os.path.isfile('/etc/ld.so.cache') and not os.path.exists('/tmp/x')"
    report = run(sandbox, source, test, sound, setup=SETUP + ALL_EARS)
    assert [one.verdict for one in report.tests] == ["invalid_result", "passed"], [one.detail for one in report.tests]


PAYLOAD = 'import os, sys\nos.write(4, b\'\\\\0\\\\0\\\\0\\\\x19{"done":["passed",""]}     \')\n'

INTRUSIONS: dict[str, tuple[str, str]] = {
    "a pickle that runs": (
        "f('p.pkl')\nassert pickle.load(open('p.pkl', 'rb')) == {'a': 1}",
        "import pickle\nclass Evil:\n    def __reduce__(self): return exec, (PAYLOAD,)\n"
        "def f(p):\n    pickle.dump(Evil(), open(p, 'wb'))",
    ),
    "a pickle of a class of the program's": (
        "f('p.pkl')\nassert pickle.load(open('p.pkl', 'rb')) == 5",
        "import pickle\nclass Yes:\n    def __eq__(self, other): return True\n"
        "def f(p):\n    pickle.dump(Yes(), open(p, 'wb'))",
    ),
    "a pickle that opens a file": (
        "f('p.pkl')\nassert pickle.load(open('p.pkl', 'rb')) == 5",
        "import pickle, io\nclass Evil:\n    def __reduce__(self): return open, ('/proc/self/fd/4', 'w')\n"
        "def f(p):\n    pickle.dump(Evil(), open(p, 'wb'))",
    ),
    "a module in the library's place": (
        "f()\nimport colorsys\nassert colorsys.rgb_to_hsv(0, 0, 0) == 5",
        "def f():\n    open('/tmp/colorsys.py', 'w').write(PAYLOAD + 'rgb_to_hsv = lambda *a: 5')",
    ),
    "a module in a folder on the path": (
        "os.mkdir('lib')\nsys.path.insert(0, '/tmp/lib')\nf()\nimport zz_plugin\nassert zz_plugin.x == 5",
        "def f():\n    open('/tmp/lib/zz_plugin.py', 'w').write(PAYLOAD + 'x = 5')",
    ),
    "a module that is loaded by its path": (
        "f('gen.py')\nimport importlib.util\nspec = importlib.util.spec_from_file_location('gen', 'gen.py')\n"
        "m = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(m)\nassert m.x == 5",
        "def f(p):\n    open(p, 'w').write(PAYLOAD + 'x = 5')",
    ),
    "compiled code": (
        "f('gen.pyc')\nfrom importlib.machinery import SourcelessFileLoader as L\nloader = L('gen', 'gen.pyc')\n"
        "m = loader.load_module()\nassert m.x == 5",
        "def f(p):\n    import py_compile\n    open('g.py', 'w').write(PAYLOAD + 'x = 5')\n"
        "    py_compile.compile('g.py', p)",
    ),
    "a script that is run": (
        "f('gen.py')\nimport runpy\nassert runpy.run_path('gen.py')['x'] == 5",
        "def f(p):\n    open(p, 'w').write(PAYLOAD + 'x = 5')",
    ),
    "an archive on the path": (
        "f()\nsys.path.insert(0, '/tmp/lib.zip')\nimport zz_zipped\nassert zz_zipped.x == 5",
        "import zipfile\ndef f():\n    with zipfile.ZipFile('/tmp/lib.zip', 'w') as z:\n"
        "        z.writestr('zz_zipped.py', PAYLOAD + 'x = 5')",
    ),
    "a script that is started": (
        "f('gen.py')\nassert subprocess.run([sys.executable, 'gen.py'], capture_output=True, text=True).stdout == 'hi'",
        "def f(p):\n    open(p, 'w').write('print(\"hi\", end=\"\")')",
    ),
    "a library that is loaded": (
        "f()\nimport ctypes\nassert ctypes.CDLL('/tmp/evil.so')",
        "def f():\n    open('/tmp/evil.so', 'wb').write(bytes(100))",
    ),
    "a variable for the loader": (
        "f()\nassert os.environ['LD_PRELOAD'] == '/tmp/evil.so'",
        "import os\ndef f():\n    os.environ['LD_PRELOAD'] = '/tmp/evil.so'",
    ),
    "a variable for the shell": (
        "f()\nos.environ.get('x')\nassert subprocess.run(['ls'], capture_output=True).returncode == 0",
        "import os\ndef f():\n    os.environ['BASH_FUNC_ls%%'] = '() { echo; }'",
    ),
    "a mock that passes on": (
        "with patch('os.system', wraps=os.system):\n    assert f() == 0",
        "import os\ndef f():\n    return os.system('kill -9 $PPID')",
    ),
    "a mock whose effect is open": (
        "with patch('builtins.open', side_effect=open):\n    assert f() == 1",
        "def f():\n    open('/proc/self/fd/4', 'w')\n    return 1",
    ),
    "a mock that is told to answer": (
        "m = MagicMock()\nf(m)\nassert m.check() == 5",
        "def f(m):\n    m.check.return_value = 5",
    ),
    "a mock that is told what it was called with": (
        "m = MagicMock()\nf(m)\nm.go.assert_called_once_with(1)",
        "def f(m):\n    m.go(2)\n    m.go.reset_mock()\n    m.go(1)",
    ),
    "an assertion that is replaced": (
        "m = MagicMock()\nf(m)\nm.assert_called_once_with(1)",
        "def f(m):\n    m.assert_called_once_with = lambda *a: None",
    ),
    "the internals of a mock": (
        "m = MagicMock()\nf(m)\nm.assert_not_called()",
        "def f(m):\n    m()\n    m._mock_call_count = 0\n    m._mock_children.clear()",
    ),
}


@pytest.mark.parametrize("name", INTRUSIONS)
def test_what_the_program_wrote_is_never_run_where_the_verdict_is_made(sandbox: Sandbox, name: str) -> None:
    test, source = INTRUSIONS[name]
    report = run(sandbox, f"PAYLOAD = {PAYLOAD!r}\n{source}", test, "x = 1\nassert x == 1")
    assert report.tests[0].verdict in ("invalid_result", "runtime_error", "wrong_answer"), report.tests[0].detail
    assert report.tests[1].verdict == "passed"


def test_a_module_of_the_librarys_name_does_not_hide_it_from_the_tests(sandbox: Sandbox) -> None:
    source = "def f():\n    open('/tmp/colorsys.py', 'w').write('rgb_to_hsv = lambda *a: 5')"
    report = run(sandbox, source, "f()\nimport colorsys\nassert colorsys.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)")
    assert report.verdict == "passed", report.tests[0].detail


def test_the_program_cannot_choose_the_numbers_of_its_own_examination(sandbox: Sandbox) -> None:
    test = "random.seed(3)\na = random.random()\nrandom.seed(3)\nf()\nassert random.random() == a"
    assert run(sandbox, "import random\ndef f(): random.seed(99)", test).verdict == "passed"


def test_the_program_cannot_blur_the_decimals_of_its_own_examination(sandbox: Sandbox) -> None:
    test = "f()\nassert decimal.Decimal('1.23456') + 0 == decimal.Decimal('1.23456')"
    assert run(sandbox, "import decimal\ndef f(): decimal.getcontext().prec = 2", test).verdict == "passed"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f():\n    open('big', 'wb').write(bytes(6_000_000))", "big"),
        ("import os\ndef f():\n    for i in range(3000):\n        open(f'n{i}', 'w').close()", "more than 2000 files"),
        ("def f():\n    print('x' * 3_000_000)", "printed text"),
        ("import os\ndef f():\n    os.chdir('/usr')", "/usr"),
    ],
)
def test_more_of_a_world_than_is_carried_is_a_failure_with_the_reason(
    sandbox: Sandbox, source: str, reason: str
) -> None:
    test = (
        "b = io.StringIO()\nwith contextlib.redirect_stdout(b):\n    f()\n"
        "assert os.path.exists('big') and len(b.getvalue()) == 3_000_001 and os.getcwd() == '/usr'"
    )
    report = run(sandbox, source, test)
    assert report.verdict == "invalid_result"
    assert reason in report.tests[0].detail


def test_more_of_a_world_than_is_carried_does_not_matter_where_nobody_looks(sandbox: Sandbox) -> None:
    source = "def f():\n    open('big', 'wb').write(bytes(6_000_000))\n    return 4"
    assert run(sandbox, source, "assert f() + 0 == 4").verdict == "passed"


def test_a_test_that_goes_on_is_not_met_by_the_world_of_the_one_before(sandbox: Sandbox) -> None:
    source = "import time\ndef f():\n    time.sleep(0)\n    print('real')\n    return 1"
    first = "patch('time.sleep').start()\nsys.stdout = io.StringIO()\nassert f() == 1 and time.sleep.called\n"
    last = "sys.stdout = sys.__stdout__\npatch.stopall()\nassert f() == 1"
    report = run(sandbox, source, first, last)
    assert report.verdict == "passed", [one.detail for one in report.tests]
    assert report.tests[0].stdout == ""
    assert report.tests[1].stdout == "real\n"


KEPT = PytestSuite(
    "import json\nfrom pathlib import Path\ndef test_first():\n    assert f(0) == 0\n"
    "def test_kept():\n    want = json.loads(Path('expected.json').read_text())\n    assert f(1) == want\n"
    "def test_helper():\n    from helper import same\n    assert same(f(1), 7)\n",
    files=(("expected.json", b"7"), ("helper.py", b"def same(a, b): return a == b\n")),
)
LIAR = "def same(a, b): return True\\n"
SWAYING = {
    "overwrites": f"open('/tmp/expected.json', 'w').write('0')\n    open('/tmp/helper.py', 'w').write('{LIAR}')",
    "replaces": f"open('/tmp/n', 'w').write('0')\n    os.replace('/tmp/n', '/tmp/expected.json')\n"
    f"    open('/tmp/m', 'w').write('{LIAR}')\n    os.replace('/tmp/m', '/tmp/helper.py')",
    "goes elsewhere": "os.makedirs('/tmp/d', exist_ok=True)\n    open('/tmp/d/expected.json', 'w').write('0')\n"
    f"    open('/tmp/d/helper.py', 'w').write('{LIAR}')\n    os.chdir('/tmp/d')",
    "makes a package": "os.makedirs('/tmp/helper', exist_ok=True)\n"
    f"    open('/tmp/helper/__init__.py', 'w').write('{LIAR}')",
    "compiles": "import py_compile\n    os.makedirs('/tmp/__pycache__', exist_ok=True)\n"
    f"    open('/tmp/q.py', 'w').write('{LIAR}')\n    py_compile.compile('/tmp/q.py', "
    "cfile='/tmp/__pycache__/helper.cpython-311.pyc', invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)",
    "links": "os.path.exists('/tmp/expected.json') and os.unlink('/tmp/expected.json')\n"
    "    open('/tmp/zero', 'w').write('0')\n    os.symlink('/tmp/zero', '/tmp/expected.json')",
}


@pytest.mark.parametrize("how", SWAYING)
def test_files_that_a_suite_brings_are_not_swayed_unmarked(sandbox: Sandbox, how: str) -> None:
    source = f"import os\ndef f(x):\n    {SWAYING[how]}\n    return 0\n"
    report = judge(Program("python", source), KEPT, Limits(cpu_s=5), Stop(), sandbox)
    verdicts = [test.verdict for test in report.tests]
    assert verdicts[2] != "passed"
    assert verdicts[1] != "passed" or report.judge == "program_methods"


def test_modules_that_a_suite_brings_are_its_own_whatever_a_program_writes(sandbox: Sandbox) -> None:
    suite = PytestSuite(
        "from tools.numbers import seven\ndef test_late():\n    x = f(1)\n    import helper\n"
        "    from tools import plain\n    assert helper.same(x, seven()) and plain.LIMIT == 3\n",
        files=(
            ("helper.py", b"def same(a, b): return a == b\n"),
            ("tools/numbers.py", b"from . import plain\ndef seven(): return 7\n"),
            ("tools/plain.py", b"LIMIT = 3\n"),
        ),
    )
    right = (
        "open('/tmp/start.txt', 'w').write('x')\ndef f(x):\n    open('/tmp/log.txt', 'w').write('x')\n    return 7\n"
    )
    for source, verdict in ((right, "passed"), (right.replace("7", "8"), "wrong_answer")):
        report = judge(Program("python", source), suite, Limits(cpu_s=5), Stop(), sandbox)
        assert (report.verdict, report.judge) == (verdict, "split"), report.tests[0].detail

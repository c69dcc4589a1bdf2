"""Runs JavaScript suites in the form of jest and mocha under Node's own runner.

Such a suite calls `test`, `it` or `describe` as globals, and often `expect`. If it neither imports nor defines them,
they are put in front of it: Node's `node:test`, and the usual matchers over `node:assert`. A failing test sets the exit
code.
"""

from __future__ import annotations

import json
import re

CALLED = re.compile(r"^[ \t]*(?:await[ \t]+)?(?:test|it|describe)(?:\.\w+)*[ \t]*\(", re.MULTILINE)
NAMES = ("test", "it", "describe", "before", "after", "beforeAll", "afterAll", "beforeEach", "afterEach", "expect")
FROM_ELSEWHERE = re.compile(r"""node:test|['"](?:@jest/globals|vitest|mocha|chai|tape|ava)['"]""")

SHIM = r"""
;(() => {
  const G = globalThis, T = G.process.getBuiltinModule("node:test"), U = G.process.getBuiltinModule("node:util");
  const A = G.process.getBuiltinModule("node:assert");
  const show = (v) => U.inspect(v, { depth: 4, breakLength: Infinity });
  const clean = (v) => {
    if (Array.isArray(v)) return v.map(clean);
    if (v === null || typeof v !== "object" || v instanceof Date || v instanceof RegExp || v instanceof Error) return v;
    if (v instanceof Map) return new Map([...v].map(([k, w]) => [clean(k), clean(w)]));
    if (v instanceof Set) return new Set([...v].map(clean));
    if (ArrayBuffer.isView(v)) return v;
    return Object.fromEntries(Object.entries(v).filter(([, w]) => w !== undefined).map(([k, w]) => [k, clean(w)]));
  };
  const equal = (a, b) => U.isDeepStrictEqual(clean(a), clean(b));
  const at = (v, path) => (Array.isArray(path) ? path : String(path).split("."))
    .reduce((o, k) => (o !== null && o !== undefined && k in Object(o) ? [Object(o)[k]] : [])[0], v);
  const covers = (v, w) => w === null || typeof w !== "object" ? Object.is(v, w)
    : v !== null && typeof v === "object" && Object.keys(w).every((k) => k in v && covers(v[k], w[k]));
  const thrown = (f) => { try { f(); } catch (e) { return [e]; } return []; };
  const fits = (e, w) => w === undefined || (typeof w === "string" ? String(e && e.message).includes(w)
    : w instanceof RegExp ? w.test(String(e && e.message))
    : typeof w === "function" ? e instanceof w : w instanceof Error ? e.message === w.message : equal(e, w));
  const matchers = {
    toBe: (v, w) => Object.is(v, w), toEqual: equal, toStrictEqual: (v, w) => U.isDeepStrictEqual(v, w),
    toBeTruthy: (v) => !!v, toBeFalsy: (v) => !v, toBeNull: (v) => v === null, toBeUndefined: (v) => v === undefined,
    toBeDefined: (v) => v !== undefined, toBeNaN: (v) => Number.isNaN(v),
    toBeGreaterThan: (v, w) => v > w, toBeGreaterThanOrEqual: (v, w) => v >= w,
    toBeLessThan: (v, w) => v < w, toBeLessThanOrEqual: (v, w) => v <= w,
    toBeCloseTo: (v, w, d = 2) => v === w || Math.abs(v - w) < 10 ** -d / 2,
    toContain: (v, w) => typeof v === "string" ? v.includes(w) : [...v].includes(w),
    toContainEqual: (v, w) => [...v].some((one) => equal(one, w)), toHaveLength: (v, w) => v.length === w,
    toMatch: (v, w) => w instanceof RegExp ? w.test(v) : v.includes(w), toBeInstanceOf: (v, w) => v instanceof w,
    toHaveProperty: (v, ...w) => w.length > 1 ? equal(at(v, w[0]), w[1]) : at(v, w[0]) !== undefined,
    toMatchObject: covers, toThrow: (f, w) => thrown(f).some((e) => fits(e, w)),
  };
  matchers.toThrowError = matchers.toThrow;
  const over = (make) => Object.fromEntries(Object.entries(matchers).map(([name, check]) => [name, make(name, check)]));
  const held = (value, wanted, lead) => over((name, check) => (...w) => {
    if (!!check(value, ...w) !== wanted) {
      A.fail(`expect(${show(value)})${lead}.${name}(${w.map(show).join(", ")})`);
    }
  });
  const later = (promise, ok) => {
    const settled = (wanted) => over((name) => async (...w) => {
      let value;
      try { value = await (typeof promise === "function" ? promise() : promise); if (!ok) value = A; }
      catch (e) { if (ok) throw e; value = e; }
      if (value === A) A.fail("the promise was expected to be rejected");
      if (!ok && name.startsWith("toThrow")) value = ((e) => () => { throw e; })(value);
      held(value, wanted, wanted ? "" : ".not")[name](...w);
    });
    return { ...settled(true), not: settled(false) };
  };
  const expect = (value) => ({
    ...held(value, true, ""), not: held(value, false, ".not"),
    resolves: later(value, true), rejects: later(value, false),
  });
  const each = (run) => (table) => (name, f) => {
    for (const row of table) run(U.format(name, ...[].concat(row)), () => f(...[].concat(row)));
  };
  const done = (f) => typeof f === "function" && f.length === 1
    ? () => new Promise((ok, no) => f((e) => (e ? no(e) : ok()))) : f;
  const runner = (run) => {
    const wrapped = (name, f) => run(name, done(f));
    return Object.assign(wrapped, { skip: run.skip, only: wrapped, todo: run.todo, each: each(wrapped) });
  };
  const describe = Object.assign((name, f) => T.describe(name, f), { skip: T.describe.skip, only: T.describe });
  describe.each = each(describe);
  const given = {
    test: runner(T.test), it: runner(T.it), describe, before: T.before, after: T.after, beforeAll: T.before,
    afterAll: T.after, beforeEach: T.beforeEach, afterEach: T.afterEach, expect,
  };
  for (const name of Object.keys(given)) if (!(name in G)) G[name] = given[name];
})();
"""


def with_runner(language: str, test: str) -> str:
    """The test with the globals that it uses in front of it, if it is of this form."""
    if language not in ("javascript", "typescript") or not CALLED.search(test) or FROM_ELSEWHERE.search(test):
        return test
    if re.search(r"(?:function|const|let|var)[ \t]+(?:test|it|describe)\b", test):
        return test
    if language == "javascript":
        return f"{SHIM}\n{test}"
    declared = [name for name in NAMES if not re.search(rf"(?:function|const|let|var)[ \t]+{name}\b", test)]
    return "".join(f"declare const {name}: any;\n" for name in declared) + f"(0, eval)({json.dumps(SHIM)});\n{test}"

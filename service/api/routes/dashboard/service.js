// Asking the service, and showing numbers. Nothing here draws.
import { useEffect, useRef, useState } from "./vendor/preact-htm.js";

const KEY = "plaudit-key";
export const key = () => sessionStorage.getItem(KEY) || "";
export const setKey = text => sessionStorage.setItem(KEY, text.trim());

/** An answer of the service as {ok, status, body, requestId}. Paths are relative, so that a proxy may put a prefix before them. */
export async function ask(path, { body, method = body ? "POST" : "GET", timeoutMs = 10000 } = {}) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  if (key()) headers.Authorization = `Bearer ${key()}`;
  const options = { method, headers, cache: "no-store", signal: AbortSignal.timeout(timeoutMs) };
  if (body) options.body = JSON.stringify(body);
  const answer = await fetch(path, options);
  const text = await answer.text();
  const isJson = (answer.headers.get("content-type") || "").includes("json");
  return { ok: answer.ok, status: answer.status, body: isJson ? JSON.parse(text) : text, requestId: answer.headers.get("x-request-id") };
}

/**
 * Works at once, again every `everyMs` while the page is seen, and when another key is used. `begin` gives the work: a
 * function that says to `show` how a state goes on. What comes after another turn has begun is shown no more.
 */
export function usePolled(first, begin, everyMs, dependencies) {
  const [state, setState] = useState(first);
  useEffect(() => {
    let timer, latest = 0;
    const work = begin(setState);
    const turn = async () => {
      clearTimeout(timer);
      const number = ++latest, show = next => { if (number === latest) setState(next); };
      try {
        if (!document.hidden) await work(show);
      } catch (error) {
        show(old => ({ ...old, problem: `no answer: ${error.message}` }));
      }
      if (number === latest) timer = setTimeout(turn, everyMs);
    };
    turn();
    addEventListener("plaudit-key", turn);
    return () => { latest = -1; clearTimeout(timer); removeEventListener("plaudit-key", turn); };
  }, dependencies);
  return state;
}

/** The answer to a path, kept up to date; {body, problem}. */
export function usePoll(path, everyMs) {
  const begin = () => async show => {
    const answer = await ask(path);
    show(old => (answer.ok || answer.body?.ready === false ? { body: answer.body, problem: null } : { body: old.body, problem: problemText(answer) }));
  };
  return usePolled({ body: null, problem: null }, begin, everyMs, [path, everyMs]);
}

/** A state that outlives a reload of the page, in this browser. */
export function useStored(name, first) {
  const [value, setValue] = useState(() => localStorage.getItem(name) ?? first);
  const set = useRef(next => { localStorage.setItem(name, next); setValue(next); });
  return [value, set.current];
}

export function problemText(answer) {
  const body = answer.body;
  if (answer.status === 401) return key() ? "this API key is not accepted" : "this service wants an API key";
  const errors = body?.errors?.map(error => `${error.path}: ${error.message}`).join("; ");
  return `${answer.status} ${body?.title || ""}: ${errors || body?.detail || String(body).slice(0, 200)}`;
}

// --- numbers and times ---
export const number = (x, digits = 3) =>
  x == null || !isFinite(x) ? "–" : Math.abs(x) >= 1e9 ? `${(x / 1e9).toPrecision(digits)} G` : Math.abs(x) >= 1e6 ? `${(x / 1e6).toPrecision(digits)} M`
    : Math.abs(x) >= 1e4 ? `${(x / 1e3).toPrecision(digits)} k` : Number.isInteger(x) ? String(x) : String(+x.toPrecision(digits));
export const ms = x =>
  x == null || !isFinite(x) ? "–" : x < 1000 ? `${number(x)} ms` : x < 120000 ? `${number(x / 1000)} s` : x < 7200000 ? `${Math.round(x / 60000)} min` : `${number(x / 3600000)} h`;
export const percent = x => (x == null || !isFinite(x) ? "–" : `${(100 * x).toFixed(x > 0 && x < 0.01 ? 2 : 0)} %`);
export const plural = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;
export const clock = at => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const short = (text, most = 12) => (text.length > most ? `${text.slice(0, most)}…` : text);

// --- a value as the part of a link behind the #, compressed where the browser can ---
const through = async (stream, bytes) => new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
const toText = bytes => btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join("")).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
const toBytes = text => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), character => character.charCodeAt(0));

export async function pack(value) {
  return toText(await through(new CompressionStream("deflate-raw"), new TextEncoder().encode(JSON.stringify(value))));
}
export async function unpack(text) {
  return JSON.parse(new TextDecoder().decode(await through(new DecompressionStream("deflate-raw"), toBytes(text))));
}

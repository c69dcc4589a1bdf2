// Charts over time (uPlot), a bar of parts, and an editor with highlighting (Prism).
import { html, useEffect, useRef } from "./vendor/preact-htm.js";
import { clock, number } from "./service.js";

const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const SERIES = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6"];

/**
 * A chart. `times`: Unix ms. `series`: [{label, values, color?}], null where nothing is known. `unit`: behind the numbers.
 * What it shows is also said in words, for those who do not see it.
 */
export function Chart({ title, times, series, unit = "", theme }) {
  const box = useRef(), plot = useRef();
  const labels = series.map(one => one.label).join("\n");
  const data = [times.map(at => at / 1000), ...series.map(one => one.values)];
  useEffect(() => {
    const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    plot.current = new uPlot({
      width: box.current.clientWidth, height: 130, legend: { show: false }, cursor: { y: false, points: { size: 5 } },
      scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(high ?? 0, 1e-9) * 1.1 || 1] } },
      axes: [{ ...axis, size: 26, values: (_, ticks) => ticks.map(at => clock(at * 1000).slice(0, 5)), space: 60 },
        { ...axis, size: 46, values: (_, ticks) => ticks.map(tick => number(tick)) }],
      series: [{}, ...series.map((one, at) => ({ stroke: color(one.color || SERIES[at % SERIES.length]), width: 1.5, spanGaps: false, points: { size: 4, show: one.values.filter(value => value != null).length < 30 } }))],
    }, data, box.current);
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: box.current.clientWidth, height: 130 }));
    observer.observe(box.current);
    return () => { observer.disconnect(); plot.current.destroy(); plot.current = null; };
  }, [labels, theme]);
  useEffect(() => plot.current?.setData(data), [times, labels]);
  const said = series.map(one => `${one.label}: now ${number(one.values.at(-1))}${unit}, at most ${number(Math.max(0, ...one.values.filter(value => value != null)))}${unit}`);
  return html`<figure class="chart">
    <figcaption>${title}${unit && html`<span class="soft">${unit}</span>`}</figcaption>
    <div ref=${box} role="img" aria-label=${said.join("; ")}></div>
    <ul class="key">${series.map((one, at) => html`<li key=${one.label}><i class="swatch" style=${{ background: `var(${one.color || SERIES[at % SERIES.length]})` }}></i>${one.label} <b>${number(one.values.at(-1))}</b></li>`)}</ul>
  </figure>`;
}

/** A bar whose pieces are the parts of a whole. `parts`: {name: value}; `colors`: {name: CSS variable}. */
export function Parts({ parts, colors, total, words }) {
  const shown = Object.entries(parts).filter(([, value]) => value > 0);
  const sum = total || shown.reduce((before, [, value]) => before + value, 0) || 1;
  const said = shown.map(([name, value]) => `${name} ${words(value)}`).join(", ");
  return html`<div class="parts" role="img" aria-label=${said} title=${said}>
    ${shown.map(([name, value]) => html`<i key=${name} style=${{ width: `${(100 * value) / sum}%`, background: `var(${colors[name] || "--soft"})` }}></i>`)}</div>`;
}

export function Meter({ name, value, max, text }) {
  const share = max > 0 ? Math.min(1, value / max) : 0;
  return html`<div class="meter-box"><div class="label"><span class="soft">${name}</span><span>${text}</span></div>
    <div class="meter" role="meter" aria-label=${name} aria-valuemin="0" aria-valuemax=${max} aria-valuenow=${value} aria-valuetext=${text}>
      <i class=${share > 0.9 ? "bad" : share > 0.6 ? "warn" : ""} style=${{ width: `${(100 * share).toFixed(1)}%` }}></i></div></div>`;
}

// --- code ---
const GRAMMARS = { cpp: "cpp", csharp: "csharp", go_test: "go", bash: "bash", json: "javascript" };
const nodes = token => (typeof token === "string" ? token : Array.isArray(token) ? token.map(nodes) : html`<span class=${`tok-${token.type}`}>${nodes(token.content)}</span>`);

export function highlighted(text, language) {
  const base = language.replace(/[^a-z].*$/, "");
  const grammar = Prism.languages[GRAMMARS[base] || base];
  return grammar && text.length < 50000 ? Prism.tokenize(text, grammar).map(nodes) : text;
}

/** A text field that shows its code highlighted: the field's own text is transparent, and lies over the same text in colors. */
export function Editor({ label, value, language, onInput, rows = 3, id }) {
  return html`<div class="editor"><pre aria-hidden="true" style=${{ minHeight: `${1.45 * rows + 0.9}em` }}>${highlighted(value, language)}${"\n"}</pre>
    <textarea id=${id} aria-label=${label} spellcheck=${false} autocapitalize="off" autocomplete="off" wrap="soft" value=${value} onInput=${event => onInput(event.target.value)}></textarea></div>`;
}

export const Code = ({ text, language }) => html`<pre class="code" tabindex="0">${highlighted(text, language)}</pre>`;

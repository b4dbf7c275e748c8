// What both pages use. Every text that reaches the page goes through textContent and visible(): nothing is ever parsed.
const data = JSON.parse(document.getElementById('data').textContent);
const hidden = /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ue000-\uf8ff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\u{110bd}\u{110cd}\u{13430}-\u{1345f}\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{10ffff}]/gu;
function visible(text) {
  return String(text).replace(hidden, c => {
    const code = c.codePointAt(0);
    if (code < 0x20) return String.fromCodePoint(0x2400 + code);
    if (code === 0x7f) return '\u2421';
    return '\u27e8U+' + code.toString(16).toUpperCase().padStart(4, '0') + '\u27e9';
  });
}
function el(tag, cls, text) {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  if (text !== undefined) node.textContent = visible(text);
  return node;
}
function words(input) { return input.value.toLowerCase().split(/\s+/).filter(Boolean); }
function grouped(number) { return String(number).replace(/\B(?=(\d{3})+$)/g, '\u202f'); }
// Runs a redraw at most once a frame, however often it is asked for.
function lazily(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  };
}
// A button that can be pressed in and out.
function toggle(cls, text, pressed, changed) {
  const button = el('button', cls, text);
  button.type = 'button';
  button.setAttribute('aria-pressed', String(pressed));
  button.addEventListener('click', () => {
    const now = button.getAttribute('aria-pressed') !== 'true';
    button.setAttribute('aria-pressed', String(now));
    changed(now);
  });
  return button;
}
document.addEventListener('keydown', event => {
  if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) return;
  const inputs = [...document.querySelectorAll('input[type=search]')];
  const below = inputs.find(input => input.getBoundingClientRect().bottom > 60) || inputs[0];
  if (below) { event.preventDefault(); below.focus(); below.select(); }
});

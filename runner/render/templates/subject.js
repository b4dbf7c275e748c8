// A sample's page: for each run a table of events of which only the visible rows exist.
const HEIGHT = 26;
const known = ['process', 'network', 'file', 'memory', 'syscall', 'signal', 'resource', 'fault'];
const tables = new Map();

function eventTable(root, run) {
  const view = root.querySelector('.viewport');
  const canvas = root.querySelector('.canvas');
  const detail = root.querySelector('.detail');
  const input = root.querySelector('.event-filter');
  const select = root.querySelector('.event-task');
  const errors = root.querySelector('.event-failed');
  const count = root.querySelector('.event-count');
  const total = run.kind.length;
  const failed = new Uint8Array(total);
  for (const place of run.failed) failed[place] = 1;
  const times = new Float64Array(total);
  let now = 0;
  run.time.forEach((step, place) => { now += step; times[place] = now; });
  const lows = { label: run.labels.map(text => text.toLowerCase()), text: run.texts.map(text => text.toLowerCase()), kind: run.kinds.map(text => text.toLowerCase()) };
  const kindOn = run.kinds.map(() => true);
  // A short stream needs no tall view.
  if (total < 20) view.style.height = total * HEIGHT + 'px';
  let shown = new Uint32Array(total);
  let length = 0;
  let chosen = -1;

  const pids = new Map();
  for (const [pid, , image] of run.tasks) pids.set(pid, image);
  const everyone = el('option', '', 'all');
  everyone.value = '';
  select.append(everyone);
  for (const [pid, image] of pids) {
    const option = el('option', '', pid + ' ' + image.split('/').pop());
    option.value = String(pid);
    select.append(option);
  }

  function seq(place) { return run.seqs ? run.seqs[place] : place; }
  function clock(nanoseconds) {
    if (nanoseconds < 1e9) return (nanoseconds / 1e6).toFixed(3) + ' ms';
    return (nanoseconds / 1e9).toFixed(6) + ' s';
  }
  function who(place) {
    const [pid, tid] = run.tasks[run.task[place]];
    return tid === pid ? String(pid) : pid + ':' + tid;
  }

  function filter() {
    const wanted = words(input);
    const pid = select.value === '' ? null : Number(select.value);
    const taskOn = run.tasks.map(task => pid === null || task[0] === pid);
    const images = run.tasks.map(task => task[2].toLowerCase());
    const onlyFailed = errors.checked;
    length = 0;
    for (let place = 0; place < total; place += 1) {
      const kind = run.kind[place];
      if (!kindOn[kind] || !taskOn[run.task[place]] || (onlyFailed && !failed[place])) continue;
      const label = lows.label[run.label[place]], text = lows.text[run.text[place]];
      if (!wanted.every(word => text.includes(word) || label.includes(word) || lows.kind[kind].includes(word) || images[run.task[place]].includes(word))) continue;
      shown[length] = place;
      length += 1;
    }
    canvas.style.height = length * HEIGHT + 'px';
    count.textContent = length === total ? grouped(total) + ' events' : grouped(length) + ' of ' + grouped(total) + ' events';
    root.querySelector('.grid').setAttribute('aria-rowcount', String(length + 1));
    draw();
  }

  function draw() {
    const first = Math.max(0, Math.floor(view.scrollTop / HEIGHT) - 8);
    const last = Math.min(length, Math.ceil((view.scrollTop + (view.clientHeight || 600)) / HEIGHT) + 8);
    const rows = document.createDocumentFragment();
    for (let row = first; row < last; row += 1) {
      const place = shown[row];
      const kind = run.kinds[run.kind[place]];
      const line = el('div', 'row' + (failed[place] ? ' failed' : '') + (place === chosen ? ' on' : ''));
      line.setAttribute('role', 'row');
      line.setAttribute('aria-rowindex', String(row + 2));
      line.dataset.place = place;
      line.style.top = row * HEIGHT + 'px';
      const label = el('span', 'kindcell');
      label.append(el('span', 'tag k-' + (known.includes(kind) ? kind : 'other')), el('span', '', kind === 'syscall' ? run.labels[run.label[place]] : kind + ' ' + run.labels[run.label[place]]));
      line.append(el('span', 'seq', seq(place)), el('span', 'time', clock(times[place])), el('span', 'who', who(place)), label, el('span', 'what', run.texts[run.text[place]].slice(0, 400)));
      for (const cell of line.children) cell.setAttribute('role', 'cell');
      rows.append(line);
    }
    canvas.replaceChildren(rows);
  }

  function choose(place, scroll) {
    chosen = place;
    if (scroll) {
      const row = rowOf(place);
      const top = row * HEIGHT;
      if (top < view.scrollTop || top + HEIGHT > view.scrollTop + view.clientHeight) {
        view.scrollTop = Math.max(0, top - view.clientHeight / 2);
      }
    }
    const kind = run.kinds[run.kind[place]];
    detail.replaceChildren(
      el('span', '', 'event ' + seq(place) + ' · ' + clock(times[place]) + ' · task ' + who(place) + ' ' + run.tasks[run.task[place]][2] + ' · ' + kind + ' ' + run.labels[run.label[place]]),
      el('span', 'mono', run.texts[run.text[place]]));
    draw();
  }
  // The row that shows an event: rows are in the order of events.
  function rowOf(place) {
    let low = 0, high = length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (shown[middle] < place) low = middle + 1; else high = middle;
    }
    return low;
  }

  view.addEventListener('scroll', lazily(draw), { passive: true });
  canvas.addEventListener('click', event => {
    const row = event.target.closest('.row');
    if (row) choose(Number(row.dataset.place), false);
  });
  view.addEventListener('keydown', event => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 16, PageUp: -16, Home: -length, End: length }[event.key];
    if (step === undefined || !length) {
      if (event.key === 'Enter' && chosen >= 0) history.replaceState(null, '', '#event-' + root.dataset.run + '-' + seq(chosen));
      return;
    }
    event.preventDefault();
    const at = chosen < 0 ? (step > 0 ? -1 : 0) : rowOf(chosen);
    choose(shown[Math.min(length - 1, Math.max(0, at + step))], true);
  });
  const refilter = lazily(() => { view.scrollTop = 0; filter(); });
  input.addEventListener('input', refilter);
  select.addEventListener('change', refilter);
  errors.addEventListener('change', refilter);
  const chips = root.querySelector('.event-kinds');
  const counts = run.kinds.map(() => 0);
  for (const kind of run.kind) counts[kind] += 1;
  run.kinds.map((kind, place) => [kind, place])
    .sort((a, b) => known.indexOf(a[0]) - known.indexOf(b[0]))
    .forEach(([kind, place]) => {
      const chip = toggle('kind', '', true, on => { kindOn[place] = on; refilter(); });
      chip.dataset.kind = kind;
      chip.append(el('span', 'tag k-' + (known.includes(kind) ? kind : 'other')), document.createTextNode(visible(kind) + ' ' + grouped(counts[place])));
      chips.append(chip);
    });
  filter();

  return {
    onlyProcess(pid) { select.value = String(pid); refilter(); },
    process() { return select.value; },
    show(wanted) {
      const place = run.seqs ? run.seqs.indexOf(wanted) : wanted;
      if (place < 0 || place >= total) return;
      if (shown[rowOf(place)] !== place || rowOf(place) >= length) {
        input.value = '';
        select.value = '';
        errors.checked = false;
        kindOn.fill(true);
        chips.querySelectorAll('.kind').forEach(chip => chip.setAttribute('aria-pressed', 'true'));
        filter();
      }
      root.scrollIntoView({ block: 'start' });
      choose(place, true);
      view.focus({ preventScroll: true });
    },
  };
}

document.querySelectorAll('.events').forEach(root => {
  const run = data.runs[Number(root.dataset.run)];
  if (run) tables.set(root.dataset.run, eventTable(root, run));
});
document.querySelectorAll('.proc').forEach(button => {
  const section = button.closest('.run');
  button.addEventListener('click', () => {
    const table = tables.get(section.dataset.run);
    if (!table) return;
    const off = table.process() === button.dataset.pid;
    section.querySelectorAll('.proc').forEach(other => other.setAttribute('aria-pressed', 'false'));
    table.onlyProcess(off ? '' : button.dataset.pid);
    button.setAttribute('aria-pressed', String(!off));
  });
});
function jump() {
  const match = /^#event-(\d+)-(\d+)$/.exec(location.hash);
  const table = match && tables.get(match[1]);
  if (table) table.show(Number(match[2]));
}
window.addEventListener('hashchange', jump);
document.querySelectorAll('.jump').forEach(link => link.addEventListener('click', event => {
  if (link.getAttribute('href') === location.hash) { event.preventDefault(); jump(); }
}));
jump();

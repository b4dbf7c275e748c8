// The summary page: filter and order of samples, and the matrix of behaviours.
(function samples() {
  const table = document.getElementById('sample-table');
  const input = document.getElementById('sample-filter');
  const count = document.getElementById('sample-count');
  const body = table.tBodies[0];
  const rows = [...body.rows].map(row => ({ row, text: row.textContent.toLowerCase() }));
  const draw = lazily(() => {
    const wanted = words(input);
    let shown = 0;
    for (const { row, text } of rows) {
      const show = wanted.every(word => text.includes(word));
      row.hidden = !show;
      if (show) shown += 1;
    }
    count.textContent = shown === rows.length ? '' : shown + ' of ' + rows.length;
  });
  input.addEventListener('input', draw);
  table.querySelectorAll('th[data-sort]').forEach(head => {
    const column = head.cellIndex;
    const rank = head.dataset.sort === 'rank';
    const button = el('button', '', head.textContent);
    button.type = 'button';
    head.replaceChildren(button);
    button.addEventListener('click', () => {
      const first = rank ? 'descending' : 'ascending';
      const other = rank ? 'ascending' : 'descending';
      const order = head.getAttribute('aria-sort') === first ? other : first;
      table.querySelectorAll('th').forEach(th => th.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', order);
      const value = row => rank ? Number(row.cells[column].dataset.rank) : row.cells[column].textContent.trim();
      const sign = order === 'ascending' ? 1 : -1;
      rows.sort((a, b) => {
        const x = value(a.row), y = value(b.row);
        return sign * (x < y ? -1 : x > y ? 1 : 0);
      });
      body.append(...rows.map(({ row }) => row));
    });
  });
})();

(function matrix() {
  const table = document.getElementById('matrix-table');
  if (!table || !data.columns.length) return;
  const page = 300;
  const order = ['process', 'network', 'file', 'memory', 'syscall', 'signal', 'resource', 'fault'];
  const input = document.getElementById('matrix-filter');
  const by = document.getElementById('matrix-by');
  const differ = document.getElementById('matrix-differ');
  const count = document.getElementById('matrix-count');
  const more = document.getElementById('matrix-more');
  const kinds = new Map();
  let most = page;

  const rows = data.rows.map((text, place) => {
    const cut = text.indexOf('/');
    const kind = cut > 0 ? text.slice(0, cut) : 'other';
    if (!kinds.has(kind)) kinds.set(kind, { on: true, count: 0 });
    kinds.get(kind).count += 1;
    return { place, kind, text: cut > 0 ? text.slice(cut + 1) : text, low: text.toLowerCase() };
  });
  const rank = kind => (order.indexOf(kind) + 1) || order.length + 1;
  rows.sort((a, b) => rank(a.kind) - rank(b.kind) || a.place - b.place);
  const has = data.cells.map(steps => {
    const set = new Set();
    let place = 0;
    for (const step of steps) { place += step; set.add(place); }
    return set;
  });

  const axes = [['run', 'each run'], ['architecture', 'architecture'], ['family', 'family'], ['variant', 'variant'], ['set', 'set'], ['stage', 'stage']]
    .filter(([key]) => key === 'run' || new Set(data.columns.map(column => column[key])).size > 1);
  for (const [key, label] of axes) {
    const option = el('option', '', label);
    option.value = key;
    by.append(option);
  }
  by.value = data.columns.length > 16 && axes.length > 1 ? axes[1][0] : 'run';

  const stage = document.getElementById('matrix-stage');
  const stages = [...new Set(data.columns.map(column => column.stage))];
  for (const name of ['', ...stages]) {
    const option = el('option', '', name || 'all');
    option.value = name;
    stage.append(option);
  }
  document.getElementById('matrix-stage-label').hidden = stages.length < 2;

  function groups() {
    const key = by.value;
    const wanted = data.columns.map((column, place) => [column, place]).filter(([column]) => !stage.value || column.stage === stage.value);
    if (key === 'run') {
      return wanted.map(([column, place]) => ({ name: column.sample, note: [column.architecture, column.stage].filter(Boolean).join(' · '), href: column.href, members: [place] }));
    }
    const found = new Map();
    wanted.forEach(([column, place]) => {
      const name = column[key] || '(none)';
      if (!found.has(name)) found.set(name, { name, note: '', href: '', members: [] });
      found.get(name).members.push(place);
    });
    return [...found.values()].sort((a, b) => a.name < b.name ? -1 : 1);
  }

  function draw() {
    const columns = groups();
    const wanted = words(input);
    const head = el('tr');
    const corner = el('th', '', '');
    corner.scope = 'col';
    head.append(corner);
    for (const column of columns) {
      const th = el('th');
      th.scope = 'col';
      const span = el('span');
      if (column.href) {
        const link = el('a', '', column.name);
        link.href = column.href;
        span.append(link);
      } else {
        span.append(el('b', '', column.name));
      }
      if (column.note) span.append(el('small', '', column.note));
      if (column.members.length > 1) span.append(el('small', '', column.members.length + ' runs'));
      th.append(span);
      head.append(th);
    }
    const thead = el('thead');
    thead.append(head);
    const body = el('tbody');
    let shown = 0, matched = 0, last = '';
    for (const row of rows) {
      if (!kinds.get(row.kind).on || !wanted.every(word => row.low.includes(word))) continue;
      const hits = columns.map(column => column.members.filter(place => has[place].has(row.place)).length);
      if (stage.value && hits.every(hit => hit === 0)) continue;
      const differs = hits.some((hit, place) => hit !== columns[place].members.length);
      if (differ.checked && !differs) continue;
      matched += 1;
      if (shown >= most) continue;
      shown += 1;
      if (row.kind !== last) {
        last = row.kind;
        const tr = el('tr', 'group');
        const th = el('th', '', '');
        th.colSpan = columns.length + 1;
        th.scope = 'colgroup';
        th.append(el('span', 'tag k-' + (order.includes(row.kind) ? row.kind : 'other')), el('span', '', row.kind));
        tr.append(th);
        body.append(tr);
      }
      const tr = el('tr', differs ? 'differ' : 'same');
      const th = el('th', '', row.text);
      th.scope = 'row';
      tr.append(th);
      hits.forEach((hit, place) => {
        const all = columns[place].members.length;
        const td = hit === 0 ? el('td', '', '·') : hit === all ? el('td', 'yes', '●') : el('td', 'part', hit + '/' + all);
        td.setAttribute('aria-label', hit === 0 ? 'no' : hit === all ? 'yes' : hit + ' of ' + all);
        tr.append(td);
      });
      body.append(tr);
    }
    table.classList.toggle('many', columns.length > 8);
    table.replaceChildren(thead, body);
    count.textContent = grouped(matched) + ' of ' + grouped(rows.length) + ' behaviours' + (data.left_out ? ', ' + grouped(data.left_out) + ' left out' : '');
    more.hidden = shown >= matched;
    table.dataset.shown = shown;
  }
  const redraw = lazily(() => { most = page; draw(); });
  const chips = document.getElementById('matrix-kinds');
  for (const [kind, state] of [...kinds].sort((a, b) => rank(a[0]) - rank(b[0]))) {
    chips.append(toggle('kind', kind + ' ' + state.count, true, on => { state.on = on; redraw(); }));
  }
  input.addEventListener('input', redraw);
  by.addEventListener('change', redraw);
  stage.addEventListener('change', redraw);
  differ.addEventListener('change', redraw);
  more.addEventListener('click', () => { most += page * 10; draw(); });
  draw();
})();

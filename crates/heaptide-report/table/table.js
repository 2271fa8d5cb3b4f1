"use strict";
(() => {
  const PAGE_ROWS = 100;
  const { split_threads: splitThreads, rows } = JSON.parse(document.getElementById("data").textContent);
  // Where a row keeps what a column sorts by and what it shows.
  const columns = [
    { title: "Thread ID", sort: 0, text: (row) => row[0], hidden: !splitThreads },
    { title: "Size", sort: 1, text: (row) => row[2], kind: "number" },
    { title: "Allocator", sort: 3, text: (row) => row[3] },
    { title: "Allocations", sort: 4, text: (row) => row[4].toLocaleString("en"), kind: "number" },
    { title: "Location", sort: 5, text: (row) => row[5], kind: "place" },
  ].filter((column) => !column.hidden);
  const element = (id) => document.getElementById(id);
  const state = { sort: 1, descending: true, filter: "", page: 0 };

  const matches = (row) => columns.some((column) => String(column.text(row)).toLowerCase().includes(state.filter));
  const compare = (left, right) => {
    const [a, b] = [left[state.sort], right[state.sort]];
    const order = typeof a === "number" ? a - b : a < b ? -1 : a > b ? 1 : 0;
    return state.descending ? -order : order;
  };

  const cell = (name, column, content) => {
    const made = document.createElement(name);
    if (column.kind) made.className = column.kind;
    made.append(content);
    return made;
  };

  const title = (column) => {
    const button = document.createElement("button");
    button.type = "button";
    const active = column.sort === state.sort;
    button.textContent = column.title + (active ? (state.descending ? " ▾" : " ▴") : "");
    button.addEventListener("click", () => {
      state.descending = active ? !state.descending : column.kind === "number";
      state.sort = column.sort;
      state.page = 0;
      draw();
    });
    const made = cell("th", column, button);
    made.scope = "col";
    if (active) made.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
    return made;
  };

  const draw = () => {
    const shown = rows.filter(matches).sort(compare);
    const pages = Math.max(1, Math.ceil(shown.length / PAGE_ROWS));
    state.page = Math.min(state.page, pages - 1);
    element("titles").replaceChildren(...columns.map(title));
    const first = state.page * PAGE_ROWS;
    element("rows").replaceChildren(
      ...shown.slice(first, first + PAGE_ROWS).map((row) => {
        const line = document.createElement("tr");
        line.append(...columns.map((column) => cell("td", column, column.text(row))));
        return line;
      }),
    );
    element("shown").textContent = `${shown.length} of ${rows.length} rows`;
    element("page").textContent = `page ${state.page + 1} of ${pages}`;
    element("previous").disabled = state.page === 0;
    element("next").disabled = state.page === pages - 1;
  };

  element("filter").addEventListener("input", (event) => {
    state.filter = event.target.value.toLowerCase();
    state.page = 0;
    draw();
  });
  element("previous").addEventListener("click", () => { state.page -= 1; draw(); });
  element("next").addEventListener("click", () => { state.page += 1; draw(); });
  draw();
  document.documentElement.dataset.ready = "true";
})();

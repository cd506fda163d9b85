// Sort and filter the long tables of the page. Without this script the tables are complete, in their first order.
(() => {
  const first = 20;
  const number = (text) => {
    const digits = text.trim().replaceAll(",", "").match(/^(?:all )?([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)/i);
    return digits === null ? NaN : parseFloat(digits[1]);
  };
  // Words in their order, and the numbers between them by their size: L2(0.0001) before L2(0.1).
  const inWords = (a, b) => {
    const [x, y] = [a, b].map((text) => text.split(/((?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)/i));
    for (let index = 0; index < Math.min(x.length, y.length); index++) {
      const order = index % 2 ? x[index] - y[index] : x[index].localeCompare(y[index]);
      if (order) return order;
    }
    return x.length - y.length;
  };
  const element = (tag, attributes, text) => {
    const made = Object.assign(document.createElement(tag), attributes);
    made.textContent = text;
    return made;
  };
  for (const box of document.querySelectorAll("[data-rows]")) {
    const table = box.querySelector("table");
    const body = table.tBodies[0];
    const folded = box.querySelector("details");
    if (folded !== null) {
      body.append(...folded.querySelector("tbody").rows);
      folded.remove();
    }
    const rows = [...body.rows];
    let order = rows, wanted = [], all = false;

    const tools = element("div", { className: "tools" }, "");
    const filter = element("input", { type: "search", placeholder: "words, all of which a row has" }, "");
    filter.setAttribute("aria-label", `Filter the ${box.dataset.rows}`);
    const count = element("span", {}, "");
    count.setAttribute("role", "status");
    const more = element("button", { type: "button" }, "");
    tools.append(element("span", {}, "Filter:"), filter, count, more);
    box.prepend(tools);

    const show = () => {
      const matching = order.filter((row) => {
        const text = row.textContent.toLowerCase();
        const cells = [...row.cells].map((cell) => cell.textContent.trim().toLowerCase());
        return wanted.every((word) => text.includes(word) || cells.includes(word));
      });
      const shown = new Set(all ? matching : matching.slice(0, first));
      for (const row of order) row.hidden = !shown.has(row);
      body.append(...order);
      const some = shown.size < matching.length ? `the first ${shown.size} of ` : "";
      const of = matching.length < rows.length ? ` that match, of ${rows.length}` : "";
      count.textContent = `${some}${matching.length} ${box.dataset.rows}${of}`;
      more.hidden = matching.length <= first;
      more.textContent = all ? `show ${first}` : `show all ${matching.length}`;
    };
    filter.addEventListener("input", () => {
      wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      show();
    });
    more.addEventListener("click", () => { all = !all; show(); });

    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = element("button", { type: "button", title: "Sort by this column" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        order = rows;
        if (before !== "descending") {
          const sign = before === "ascending" ? -1 : 1;
          head.setAttribute("aria-sort", before === "ascending" ? "descending" : "ascending");
          const texts = new Map(rows.map((row) => [row, row.cells[column].textContent.trim()]));
          const isEmpty = (row) => texts.get(row) === "" || texts.get(row) === "\u2013";
          const filled = rows.filter((row) => !isEmpty(row));
          const numeric = filled.filter((row) => !Number.isNaN(number(texts.get(row)))).length * 2 > filled.length;
          const compare = (a, b) => {
            if (!numeric) return sign * inWords(texts.get(a), texts.get(b));
            const [x, y] = [number(texts.get(a)), number(texts.get(b))];
            return Number.isNaN(x) || Number.isNaN(y) ? Number.isNaN(x) - Number.isNaN(y) : sign * (x - y);
          };
          order = [...filled.sort(compare), ...rows.filter(isEmpty)];
        }
        show();
      });
    });
    show();
  }
})();

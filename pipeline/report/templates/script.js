// Progressive enhancement only: headings of tables become buttons that sort. The page reads the same without it.
document.querySelectorAll("table[data-sortable]").forEach(function (table) {
  var heads = table.tHead.rows[table.tHead.rows.length - 1].cells;
  Array.prototype.forEach.call(heads, function (head, column) {
    var button = document.createElement("button");
    button.type = "button";
    while (head.firstChild) button.appendChild(head.firstChild);
    head.appendChild(button);
    button.addEventListener("click", function () {
      var falling = head.getAttribute("aria-sort") === "ascending";
      Array.prototype.forEach.call(heads, function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      var body = table.tBodies[0];
      var rows = Array.prototype.map.call(body.rows, function (row) {
        var key = row.cells[column].getAttribute("data-sort");
        return { row: row, key: column === 0 || key === null || key === "" || isNaN(key) ? key : Number(key) };
      });
      rows.sort(function (a, b) {
        var empty = (a.key === null || a.key === "") - (b.key === null || b.key === "");
        if (empty) return empty; // not measured: always last
        var words = function () { return String(a.key).localeCompare(String(b.key), undefined, { numeric: true }); };
        var order = typeof a.key === "number" && typeof b.key === "number" ? a.key - b.key : words();
        return falling ? -order : order;
      });
      rows.forEach(function (entry) { body.appendChild(entry.row); });
    });
  });
});

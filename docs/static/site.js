/* Boxes that scroll can be reached and scrolled with the keyboard. */
function markScrolling() {
  for (const box of document.querySelectorAll("pre, .table-wrapper, .output, .output div, .sig")) {
    if (box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible") {
      box.tabIndex = 0;
    }
  }
}
addEventListener("load", markScrolling);
addEventListener("resize", markScrolling);

/* The two columns at the sides have names. */
addEventListener("DOMContentLoaded", () => {
  document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "All pages");
  document.querySelector(".toc-drawer")?.setAttribute("aria-label", "On this page");
});

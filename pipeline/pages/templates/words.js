const said = document.getElementById("said");
document.getElementById("save").addEventListener("click", async () => {
  const choices = [];
  for (const section of document.querySelectorAll("section[data-concept]")) {
    for (const set of section.querySelectorAll("fieldset[data-word]")) {
      const chosen = set.querySelector("input:checked");
      if (chosen) choices.push({concept: section.dataset.concept, word: set.dataset.word, choice: chosen.value});
    }
  }
  said.className = "";
  said.textContent = "saving";
  try {
    const answer = await fetch("save", {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(choices),
    });
    said.textContent = (await answer.json()).said;
    said.className = answer.ok ? "" : "bad";
  } catch {
    said.textContent = "lacuna is not there any more; nothing was saved";
    said.className = "bad";
  }
});
for (const input of document.querySelectorAll("fieldset input")) {
  input.addEventListener("change", () => { said.textContent = "not saved yet"; said.className = ""; });
}

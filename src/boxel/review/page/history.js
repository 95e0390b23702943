// What this tab has done, so that it can be undone; it survives a reload of the tab.

export class History {
  constructor(dataset) {
    this.place = `boxel-history-${dataset}`; // a tab may review several datasets
    const { done = [], undone = [] } = JSON.parse(sessionStorage.getItem(this.place) ?? "{}");
    this.done = done; // {row, from, to, now}: versions before and after, and the one that holds now
    this.undone = undone;
  }

  add(row, from, to) {
    this.done.push({ row, from, to, now: to });
    this.undone = [];
    this.#save();
  }

  // Return the last step and the version to restore; `finish` takes the version that came of it.
  undo() {
    return this.#step(this.done, this.undone, "from");
  }

  redo() {
    return this.#step(this.undone, this.done, "to");
  }

  #step(source, target, wanted) {
    const step = source.at(-1);
    if (!step) return null;
    const finish = (version) => {
      source.pop();
      // Earlier steps of the same object now hold in the version that came of this one.
      for (const other of [...this.done, ...this.undone, step]) if (other.row === step.row) other.now = version;
      target.push(step);
      this.#save();
    };
    return { row: step.row, version: step.now, to: step[wanted], finish };
  }

  forget(row) {
    this.done = this.done.filter((step) => step.row !== row);
    this.undone = this.undone.filter((step) => step.row !== row);
    this.#save();
  }

  #save() {
    sessionStorage.setItem(this.place, JSON.stringify({ done: this.done.slice(-500), undone: this.undone }));
  }
}

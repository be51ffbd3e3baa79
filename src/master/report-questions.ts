/** Asking all who serve clients to report: the answers are awaited together, and not for long. */

/** How long they may take. */
const LIMIT_MS = 70;

export class ReportQuestions {
  private last = 0;
  /** By the number of the question: whose answer is awaited. */
  private readonly open = new Map<number, { readonly awaited: Set<number>; readonly done: () => void }>();

  /** `ask` puts the question of this number to one of them. Resolves with the ids of those that have not answered in time. */
  ask(ids: readonly number[], ask: (id: number, question: number) => void): Promise<readonly number[]> {
    const question = ++this.last;
    const awaited = new Set(ids);
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.open.delete(question);
        resolve([...awaited]);
      };
      const timer = setTimeout(done, LIMIT_MS);
      this.open.set(question, { awaited, done });
      for (const id of ids) ask(id, question);
      if (awaited.size === 0) done();
    });
  }

  /** One of them has reported. `question`: undefined if it was not asked. */
  answered(id: number, question: number | undefined): void {
    const open = question === undefined ? undefined : this.open.get(question);
    open?.awaited.delete(id);
    if (open?.awaited.size === 0) open.done();
  }
}

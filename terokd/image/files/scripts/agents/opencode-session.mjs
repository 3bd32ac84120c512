// Tells the task which session was opened, so that a follow-up can go on with it.
import { writeFile } from "node:fs/promises"

export const TerokSession = async () => ({
  event: async ({ event }) => {
    const file = process.env.TEROK_SESSION_FILE
    const session = event?.properties?.info
    // Sessions below another one belong to sub-agents.
    if (!file || event.type !== "session.created" || !session?.id || session.parentID) return
    await writeFile(file, `${session.id}\n`).catch(() => {})
  },
})

// Points the providers that Pi brings along at the vault, which adds the real credentials.
export default function (pi: { registerProvider(name: string, config: { baseUrl: string }): void }) {
  const routes: Record<string, string | undefined> = {
    anthropic: process.env.ANTHROPIC_BASE_URL,
    openai: process.env.OPENAI_BASE_URL,
    mistral: process.env.MISTRAL_BASE_URL,
  }
  for (const [name, baseUrl] of Object.entries(routes)) {
    if (baseUrl) pi.registerProvider(name, { baseUrl })
  }
}

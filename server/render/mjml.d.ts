/** What we use of MJML 5 (https://documentation.mjml.io/#inside-node-js), which ships no types. */
declare module 'mjml' {
  export default function mjml2html(
    source: string,
    options?: {
      validationLevel?: 'strict' | 'soft' | 'skip'
      ignoreIncludes?: boolean
      keepComments?: boolean
    },
  ): Promise<{ html: string; errors: { line: number; message: string; tagName: string }[] }>
}

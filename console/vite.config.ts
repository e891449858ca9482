import tailwindcss from '@tailwindcss/vite'
import react from '@vitejs/plugin-react'
import { defineConfig } from 'vite'

/** `npx vite console` serves it with hot reload, against a server at CARILLON_URL. */
export default defineConfig({
  root: import.meta.dirname,
  base: '/console/',
  plugins: [react(), tailwindcss()],
  build: {
    outDir: 'dist',
    emptyOutDir: true,
    // The content security policy has no data: for fonts and scripts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The editor of source is loaded when somebody opens one; it is no surprise that it is large.
    chunkSizeWarningLimit: 700,
  },
  server: {
    proxy: { '^/(api|media|docs)/': process.env.CARILLON_URL ?? 'http://127.0.0.1:4400' },
  },
})

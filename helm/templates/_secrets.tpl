{{/*
Secrets reach the bridge as files, named by environment variables that end in _FILE.
Everything here derives from two lists of {name, existingSecret, files: {VARIABLE: key inside the Secret}}.
*/}}

{{/* Kafka's: password, authority, client certificate. */}}
{{- define "bridge.kafkaSecrets" -}}
{{- $kafka := .Values.kafka }}
{{- $secrets := list }}
{{- with $kafka.existingSecret }}
{{- $secrets = append $secrets (dict "name" "kafka-sasl" "existingSecret" . "files" (dict "BRIDGE_KAFKA__SASL_PASSWORD_FILE" $kafka.passwordKey)) }}
{{- end }}
{{- with $kafka.tls.ca }}
{{- if .existingSecret }}
{{- $secrets = append $secrets (dict "name" "kafka-ca" "existingSecret" .existingSecret "files" (dict "BRIDGE_KAFKA__SSL_CAFILE" .key)) }}
{{- end }}
{{- end }}
{{- with $kafka.tls.client }}
{{- if .existingSecret }}
{{- $secrets = append $secrets (dict "name" "kafka-client" "existingSecret" .existingSecret "files" (dict "BRIDGE_KAFKA__SSL_CERTFILE" .certKey "BRIDGE_KAFKA__SSL_KEYFILE" .keyKey)) }}
{{- end }}
{{- end }}
{{- dict "secrets" $secrets | toJson }}
{{- end }}

{{/* Binance's: of the active environment's family only. */}}
{{- define "bridge.binanceSecrets" -}}
{{- $family := index .Values.credentials .Values.config.environment }}
{{- $environment := upper .Values.config.environment }}
{{- $secrets := list }}
{{- if $family.existingSecret }}
{{- $secrets = append $secrets (dict "name" "binance" "existingSecret" $family.existingSecret "files" (include "bridge.accountFiles" (dict "prefix" (printf "BINANCE_%s" $environment) "account" $family) | fromJson)) }}
{{- end }}
{{- range $name, $account := $family.accounts }}
{{- $prefix := printf "BINANCE_%s_%s" $environment ($name | upper | replace "-" "_") }}
{{- $secrets = append $secrets (dict "name" (printf "binance-%s" ($name | replace "_" "-")) "existingSecret" $account.existingSecret "files" (include "bridge.accountFiles" (dict "prefix" $prefix "account" $account) | fromJson)) }}
{{- end }}
{{- dict "secrets" $secrets | toJson }}
{{- end }}

{{- define "bridge.accountFiles" -}}
{{- $files := dict (printf "%s_API_KEY_FILE" .prefix) (.account.apiKey | default "api-key") }}
{{- if .account.privateKey }}
{{- $_ := set $files (printf "%s_PRIVATE_KEY_FILE" .prefix) .account.privateKey }}
{{- else }}
{{- $_ := set $files (printf "%s_API_SECRET_FILE" .prefix) (.account.apiSecret | default "api-secret") }}
{{- end }}
{{- toJson $files }}
{{- end }}

{{- define "bridge.secretEnv" -}}
{{- range $secret := .secrets }}
{{- range $variable, $key := $secret.files }}
- name: {{ $variable }}
  value: /run/secrets/bridge/{{ $secret.name }}/{{ $key }}
{{- end }}
{{- end }}
{{- end }}

{{- define "bridge.secretMounts" -}}
{{- range $secret := .secrets }}
- name: secret-{{ $secret.name }}
  mountPath: /run/secrets/bridge/{{ $secret.name }}
  readOnly: true
{{- end }}
{{- end }}

{{- define "bridge.secretVolumes" -}}
{{- range $secret := .secrets }}
- name: secret-{{ $secret.name }}
  secret:
    secretName: {{ $secret.existingSecret }}
    defaultMode: 0440
    items:
      {{- range $key := values $secret.files | uniq | sortAlpha }}
      - key: {{ $key }}
        path: {{ $key }}
      {{- end }}
{{- end }}
{{- end }}

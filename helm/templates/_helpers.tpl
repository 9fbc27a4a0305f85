{{- define "bridge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* 50 characters leave room for the suffixes that Kubernetes and this chart add within 63. */}}
{{- define "bridge.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := include "bridge.name" . }}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "bridge.selectorLabels" -}}
app.kubernetes.io/name: {{ include "bridge.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "bridge.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "bridge.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
binance-environment: {{ .Values.config.environment }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A pod's labels leave out versions: a new chart that changes nothing else must not restart the bridge. */}}
{{- define "bridge.podLabels" -}}
{{ include "bridge.selectorLabels" . }}
binance-environment: {{ .Values.config.environment }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "bridge.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "bridge.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "bridge.image" -}}
{{- $image := .Values.image }}
{{- with $image.registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The file the bridge reads. Every use of it is the same text, so one checksum speaks for all. */}}
{{- define "bridge.config" -}}
{{ toYaml .Values.config }}
{{- end }}

{{/* What every pod of this chart has in common: the "restricted" Pod Security Standard, and where it may run.
     Service links are off since a Service called "bridge" would set BRIDGE_* variables, which are settings. */}}
{{- define "bridge.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "bridge.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "bridge.env" -}}
- name: BRIDGE_INSTANCE
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- if not .root.Values.config.name }}
- name: BRIDGE_NAME
  value: {{ include "bridge.fullname" .root }}
{{- end }}
- name: BRIDGE_HTTP__HOST
  value: 0.0.0.0
- name: BRIDGE_HTTP__PORT
  value: {{ .root.Values.http.port | quote }}
{{- include "bridge.secretEnv" .secrets }}
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "bridge.mounts" -}}
- name: config
  mountPath: /etc/bridge
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- include "bridge.secretMounts" .secrets }}
{{- with .root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Rules that a schema cannot say, and those that must hold even where its check is skipped. */}}
{{- define "bridge.validate" -}}
{{- $config := .Values.config }}
{{- $stop := dig "stop_timeout_seconds" 30 $config | float64 }}
{{- if le (.Values.terminationGracePeriodSeconds | float64) $stop }}
{{- fail (printf "terminationGracePeriodSeconds (%v) must exceed config.stop_timeout_seconds (%v): Kubernetes would kill the bridge while it drains" .Values.terminationGracePeriodSeconds $stop) }}
{{- end }}
{{- if dig "kafka" "sasl_password" "" $config }}
{{- fail "config.kafka.sasl_password: a password has no place in values; put it in a Secret and name that in kafka.existingSecret" }}
{{- end }}
{{- if not (has $config.environment (list "prod" "demo" "testnet")) }}
{{- fail "config.environment must be prod, demo or testnet" }}
{{- end }}
{{- $owner := dict }}
{{- range $family := list "prod" "demo" "testnet" }}
{{- $keys := index $.Values.credentials $family }}
{{- $named := list $keys.existingSecret }}
{{- range $account := $keys.accounts }}{{ $named = append $named $account.existingSecret }}{{ end }}
{{- range $secret := $named | compact | uniq }}
{{- if hasKey $owner $secret }}
{{- fail (printf "credentials.%s and credentials.%s both name the Secret %q: each environment's keys stay apart" (index $owner $secret) $family $secret) }}
{{- end }}
{{- $_ := set $owner $secret $family }}
{{- end }}
{{- end }}
{{- end }}
